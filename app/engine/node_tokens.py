"""The token policies that authors gave their nodes with `@stream_tokens`."""

from collections.abc import Mapping
from typing import Any

from langgraph.pregel import Pregel

from app.engine.state import Graph
from app.streaming.tokens import policy_of


def node_tokens(graph: Graph, *, subgraphs: bool) -> Mapping[str, Mapping[str, Any]]:
    """By the name of a node, which is what token frames have; of nodes with one name the outermost's counts."""
    found: dict[str, Mapping[str, Any]] = {}
    # looking for subgraphs reads the source of the nodes, so only where they are asked for
    children = graph.get_subgraphs(recurse=True) if subgraphs else ()
    inner = [child for _, child in children if isinstance(child, Pregel)]
    for compiled in (graph, *inner):
        for name, node in compiled.nodes.items():
            functions = (getattr(node.bound, kind, None) for kind in ("func", "afunc"))
            policy = next((policy for function in functions if (policy := policy_of(function))), None)
            if policy is not None:
                found.setdefault(name, policy)
    return found
