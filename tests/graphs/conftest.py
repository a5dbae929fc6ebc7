import pytest


@pytest.fixture(autouse=True)
def scripted_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test speaks through the scripted model, without a pause, whatever the developer's environment says."""
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    monkeypatch.setenv("SCRIPTED_DELAY_SECONDS", "0")
