"""The graph of a provider's model. Apart from the others, since OpenAI's client takes a second and 20 MB to import."""

import os
from typing import Any

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from benchmarks.graph import State, one_node


async def chat_model(state: State) -> State:
    """At the endpoint that the environment names."""
    openai = ChatOpenAI(model="endpoint", base_url=os.environ["BENCHMARK_ENDPOINT"], api_key=SecretStr("none"))
    return {"messages": [await openai.ainvoke(state["messages"])]}


chat: Any = one_node(chat_model).compile()
