"""A tool that asks the user, written once for both eras (mcp 2.x only: `Resolve` asks on the stream or by input_required)."""

from typing import Annotated

from mcp.server import MCPServer
from mcp.server.mcpserver import Elicit, Resolve
from pydantic import BaseModel


class Said(BaseModel):
    """What the user is asked for."""

    text: str


def question_for(question: str) -> Elicit[Said]:
    """The question goes to the user as it stands."""
    return Elicit(question, Said)


def register_ask(server: MCPServer) -> None:
    """Give the server the tool."""

    @server.tool()
    def ask(question: str, answer: Annotated[Said, Resolve(question_for)]) -> str:
        """Ask the user something."""
        return f"the user said: {answer.text}"
