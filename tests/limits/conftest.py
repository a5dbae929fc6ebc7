from pathlib import Path

from tests.server import ROOT

CONFIG = ROOT / "tests" / "limits" / "langgraph.json"


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
