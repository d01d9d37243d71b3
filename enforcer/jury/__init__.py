"""The jury: a language model behind an OpenAI-compatible endpoint, asked about the scanner's gray band. It may add a hold and never lift one.

client   the daemon's side: whether to ask, how often, how long to wait, and what silence means
member   a process of its own, the only one of Holdfast's judges with a way to the network: asks the endpoint; holds its key and no other secret
frames   what the two say to each other
local    starting a member without the helper
"""
