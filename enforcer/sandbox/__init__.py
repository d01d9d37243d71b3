"""The second judge's impure half: twins of guarded servers under gVisor, the state that each gets, what each did, and the way back.

It knows no other adapter; its values are those of `escrow.sandbox`.
"""
