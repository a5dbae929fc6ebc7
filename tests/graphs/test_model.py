import subprocess
import sys

import pytest
from langchain_core.language_models import BaseChatModel
from pydantic import SecretStr, ValidationError

from graphs.model import chat_model
from graphs.scripted import ScriptedChatModel


def test_without_a_key_the_model_is_scripted_and_speaks_in_its_role() -> None:
    model = chat_model("critic")

    assert isinstance(model, ScriptedChatModel)
    assert model.role == "critic"


def test_the_delay_is_read_when_the_model_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    delays = []
    for seconds in ("0", "0.5"):
        monkeypatch.setenv("SCRIPTED_DELAY_SECONDS", seconds)
        delays.append(delay(chat_model()))

    assert delays == [0, 0.5]


def delay(model: BaseChatModel) -> float:
    assert isinstance(model, ScriptedChatModel)
    return model.delay_seconds


def test_a_negative_delay_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_DELAY_SECONDS", "-1")

    with pytest.raises(ValidationError, match="scripted_delay_seconds"):
        chat_model()


def test_with_a_key_the_model_is_the_one_of_the_settings_and_reports_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    from langchain_openai import ChatOpenAI

    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_MODEL", "some-model")

    model = chat_model("critic")

    assert isinstance(model, ChatOpenAI)
    assert (model.model_name, model.openai_api_base) == ("some-model", "http://127.0.0.1:1/v1")
    assert isinstance(model.openai_api_key, SecretStr)
    assert model.openai_api_key.get_secret_value() == "a-key"
    assert model.stream_usage is True


def test_importing_every_graph_does_not_import_the_openai_client() -> None:
    code = "import sys, graphs.approval, graphs.chat, graphs.essay, graphs.ideas, graphs.tools; "
    code += "sys.exit('langchain_openai' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
