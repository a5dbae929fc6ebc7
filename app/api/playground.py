"""The playground: one static page to try a graph with."""

from pathlib import Path

from fastapi import APIRouter, Response

router = APIRouter(include_in_schema=False)

PAGE = Path(__file__).parent.parent / "playground" / "index.html"


@router.get("/")
async def playground() -> Response:
    headers = {
        "Content-Security-Policy": "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return Response(PAGE.read_bytes(), media_type="text/html; charset=utf-8", headers=headers)
