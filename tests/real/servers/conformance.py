"""What the official conformance suite asks a server to offer; names and values are the suite's."""

from __future__ import annotations

import base64
import io
import json
import struct
import wave
import zlib
from typing import Any

import anyio
from mcp.types import CallToolResult, Completion
from pydantic import BaseModel, Field

from tests.real.servers.sdk import Context
from tests.real.servers.tools import PoisonedServer


def _png() -> bytes:
    """One red pixel (PNG, sections 5 and 11: a length, a type, the data, a CRC of both)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")) + chunk(b"IEND", b"")


def _wav() -> bytes:
    """A hundredth of a second of silence."""
    made = io.BytesIO()
    with wave.open(made, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(160))
    return made.getvalue()


PNG = base64.b64encode(_png()).decode()
WAV = base64.b64encode(_wav()).decode()
EMBEDDED = {"uri": "test://embedded-resource", "mimeType": "text/plain", "text": "This is an embedded resource content."}
IMAGE = {"type": "image", "data": PNG, "mimeType": "image/png"}


class Defaults(BaseModel):
    """SEP-1034: a default of every primitive type."""

    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: str = Field(default="active", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = True


def _titled(*names: str) -> list[Any]:
    return [{"const": name, "title": name.title()} for name in names]


class Enums(BaseModel):
    """SEP-1330: the five ways to offer a choice."""

    untitledSingle: str = Field(json_schema_extra={"enum": ["option1", "option2", "option3"]})
    titledSingle: str = Field(json_schema_extra={"oneOf": _titled("value1", "value2", "value3")})
    legacyEnum: str = Field(json_schema_extra={"enum": ["opt1", "opt2", "opt3"], "enumNames": ["One", "Two", "Three"]})
    untitledMulti: list[str] = Field(json_schema_extra={"items": {"type": "string", "enum": ["option1", "option2", "option3"]}})
    titledMulti: list[str] = Field(json_schema_extra={"items": {"anyOf": _titled("value1", "value2", "value3")}})


class Reply(BaseModel):
    """What test_elicitation asks for."""

    response: str = Field(description="User's response")


def _result(*content: dict[str, Any]) -> CallToolResult:
    return CallToolResult.model_validate({"content": list(content)})


def register(server: PoisonedServer) -> None:
    """Give the server everything of this file."""
    _contents(server)
    _streams(server)
    _elicitations(server)
    _resources_and_prompts(server)


def _contents(server: PoisonedServer) -> None:
    @server.tool()
    def test_simple_text() -> str:
        """Text."""
        return "This is a simple text response for testing."

    @server.tool()
    def test_image_content() -> CallToolResult:
        """An image."""
        return _result(IMAGE)

    @server.tool()
    def test_audio_content() -> CallToolResult:
        """A sound."""
        return _result({"type": "audio", "data": WAV, "mimeType": "audio/wav"})

    @server.tool()
    def test_embedded_resource() -> CallToolResult:
        """A resource."""
        return _result({"type": "resource", "resource": EMBEDDED})

    @server.tool()
    def test_multiple_content_types() -> CallToolResult:
        """Text, an image and a resource."""
        mixed = {"uri": "test://mixed-content-resource", "mimeType": "application/json", "text": '{"test":"data","value":123}'}
        return _result({"type": "text", "text": "Multiple content types test:"}, IMAGE, {"type": "resource", "resource": mixed})

    @server.tool()
    def test_error_handling() -> str:
        """An error."""
        raise RuntimeError("This tool intentionally returns an error for testing")


def _streams(server: PoisonedServer) -> None:
    @server.tool()
    async def test_tool_with_logging(ctx: Context) -> str:
        """Logs while it runs."""
        for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            await ctx.info(text)
            await anyio.sleep(0.05)
        return "logged"

    @server.tool()
    async def test_tool_with_progress(ctx: Context) -> str:
        """Progress while it runs."""
        for done in (0, 50, 100):
            await ctx.report_progress(done, 100, f"Completed step {done} of 100")
            await anyio.sleep(0.05)
        return "done"

    @server.tool()
    async def test_reconnection(ctx: Context) -> str:
        """Closes the stream in the middle (SEP-1699)."""
        await ctx.close_sse_stream()
        await anyio.sleep(0.2)
        return "Reconnection test completed"

    @server.tool()
    async def test_sampling(prompt: str, ctx: Context) -> str:
        """Asks the client's model."""
        from mcp.types import SamplingMessage

        message = SamplingMessage.model_validate({"role": "user", "content": {"type": "text", "text": prompt}})
        # On this call's own stream: on the session's it is lost where the client's GET has not come yet, with or without a gate.
        said = await ctx.session.create_message(messages=[message], max_tokens=100, related_request_id=ctx.request_id)
        return f"LLM response: {getattr(said.content, 'text', '')}"


def _elicitations(server: PoisonedServer) -> None:
    async def outcome(ctx: Context, message: str, schema: type[BaseModel]) -> str:
        asked = await ctx.elicit(message, schema)
        content = asked.data.model_dump_json() if asked.action == "accept" else "{}"
        return f"Elicitation completed: action={asked.action}, content={content}"

    @server.tool()
    async def test_elicitation(message: str, ctx: Context) -> str:
        """Asks the user."""
        return await outcome(ctx, message, Reply)

    @server.tool()
    async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
        """Asks with defaults."""
        return await outcome(ctx, "Please provide user information", Defaults)

    @server.tool()
    async def test_elicitation_sep1330_enums(ctx: Context) -> str:
        """Asks with choices."""
        return await outcome(ctx, "Please choose", Enums)


def _resources_and_prompts(server: PoisonedServer) -> None:
    @server.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        """Text."""
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        """Bytes."""
        return base64.b64decode(PNG)

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:
        """A template."""
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})

    def user(content: dict[str, Any]) -> Any:
        return {"role": "user", "content": content}

    @server.prompt()
    def test_simple_prompt() -> str:
        """A prompt."""
        return "This is a simple prompt for testing."

    @server.prompt()
    def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        """A prompt with arguments."""
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt()
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[Any]:
        """A prompt with a resource."""
        resource = {"uri": resourceUri, "mimeType": "text/plain", "text": "Embedded resource content for testing."}
        return [user({"type": "resource", "resource": resource}), user({"type": "text", "text": "Please process the resource above."})]

    @server.prompt()
    def test_prompt_with_image() -> list[Any]:
        """A prompt with an image."""
        return [user(IMAGE), user({"type": "text", "text": "Please analyze the image above."})]

    @server.completion()  # type: ignore[no-untyped-call,untyped-decorator,unused-ignore]  # the SDK leaves it untyped
    async def complete(ref: Any, argument: Any, context: Any) -> Completion:
        return Completion(values=["paris", "park", "party"], total=3)
