"""The one place that chooses the chat model."""

from langchain_core.language_models import BaseChatModel
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from graphs.replies import Role
from graphs.scripted import ScriptedChatModel


class ModelSettings(BaseSettings):
    """Which model speaks, read from the environment whenever an instance is made."""

    openai_api_key: SecretStr = SecretStr("")
    openai_base_url: str = ""
    openai_model: str = "gpt-4.1-mini"
    scripted_delay_seconds: float = Field(default=0.03, ge=0)


def chat_model(role: Role = "assistant") -> BaseChatModel:
    """The model for a node.

    With `OPENAI_API_KEY` set it is `OPENAI_MODEL` at `OPENAI_BASE_URL` (any OpenAI-compatible endpoint); without it,
    the scripted model, which needs no network and waits `SCRIPTED_DELAY_SECONDS` between words.

    Args:
        role: what the scripted model speaks as. A real one is told by the node's prompt and ignores this.

    Raises:
        pydantic.ValidationError: a setting has a value of the wrong kind.
    """
    settings = ModelSettings()
    if not settings.openai_api_key.get_secret_value():
        return ScriptedChatModel(role=role, delay_seconds=settings.scripted_delay_seconds)

    # Here and not above: this import takes most of a second, which nobody without a key should wait for.
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        api_key=settings.openai_api_key,
        base_url=settings.openai_base_url or None,
        model=settings.openai_model,
        stream_usage=True,
    )
