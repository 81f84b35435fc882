"""Tests of the graph that ONNX files are made from; tests/export runs it."""

import dataclasses
import inspect

import numpy as np
import pytest
from helpers.tiny_families import HALF, tiny_family

from ppvit_jax import models
from ppvit_jax.models import transformer_graph
from ppvit_jax.models.graph import Graph
from ppvit_jax.models.layout import Layout


def test_the_graph_follows_every_part_of_a_layout():
    source = inspect.getsource(transformer_graph)
    for field in dataclasses.fields(Layout):
        assert f"layout.{field.name}" in source or field.name == "registers", f"transformer_graph ignores {field.name}"


class _Recorder(dict):
    """Arrays by name, and the names of those that were read."""

    def __init__(self, config):
        shapes = models.parameter_shapes(config)
        super().__init__({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
        self.read = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)


# Each has its own selection of parameters.
@pytest.mark.parametrize("case", ["ViT with pre_logits", "DeiT distilled", "DINOv3 with SwiGLU", "SigLIP", "CLIP"])
def test_every_parameter_is_used_and_nodes_come_after_their_inputs(case):
    config = tiny_family(case)
    params = _Recorder(config)
    graph = transformer_graph.transformer_graph(config, params, *HALF)
    assert params.read == params.keys()
    known = {graph.input, *graph.constants}
    for node in graph.nodes:
        assert set(node.inputs) <= known, node
        assert not known & set(node.outputs), node
        known |= set(node.outputs)
    assert graph.output in graph.nodes[-1].outputs


def test_a_name_that_is_taken_gets_a_number():
    graph = Graph("x", "y")
    names = [graph.add("Tanh", "x", name="value") for _ in range(3)]
    assert len(set(names)) == 3 and names[0] == "value"
    graph.constant("number", 2, np.int64)
    assert graph.constants["number"].shape == ()
