"""Graph of ONNX operators as plain data, from which `ppvit_jax.export.onnx_file` makes a file."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Node:
    """Call of an operator of ONNX (https://onnx.ai/onnx/operators).

    Attributes:
      operator: the operator's name, such as "MatMul".
      inputs, outputs: names of values.
      attributes: numbers, lists of numbers and texts by name.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """Graph with one input and one output.

    Attributes:
      input: name of the input.
      output: name of the output, which a node of the whole graph has.
      nodes: the nodes, each after those that compute its inputs.
      constants: arrays by name, such as the parameters.
    """

    input: str
    output: str
    nodes: list[Node] = dataclasses.field(default_factory=list)
    constants: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def add(self, operator: str, *inputs: str, name: str, **attributes: Any) -> str:
        """Adds a node with one output.

        Args:
          operator: the operator's name.
          *inputs: names of values.
          name: name of the output; a number is added if another value has this name.
          **attributes: attributes of the operator.

        Returns:
          The output's name.
        """
        return self.add_several(operator, *inputs, names=(name,), **attributes)[0]

    def add_several(self, operator: str, *inputs: str, names: tuple[str, ...], **attributes: Any) -> tuple[str, ...]:
        """Adds a node with several outputs; see `add`."""
        taken = {output for node in self.nodes for output in node.outputs}
        while taken & set(names):
            names = tuple(f"{name}_{len(self.nodes)}" for name in names)
        self.nodes.append(Node(operator, inputs, names, attributes))
        return names

    def constant(self, name: str, value: Any, dtype: type = np.float32) -> str:
        """Adds an array, unless the graph has one of this name, and returns its name."""
        if name not in self.constants:
            self.constants[name] = np.asarray(value, dtype, order="C")
        return name

    def dense(self, x: str, kernel: np.ndarray, bias: np.ndarray, layer: str, name: str = "") -> str:
        """Adds x kernel + bias.

        Args:
          x: name of a value, [..., inputs].
          kernel: [inputs, outputs].
          bias: [outputs].
          layer: the layer's name, from which the names of the constants are made.
          name: name of the output; "" for one that is made from the layer's name.

        Returns:
          The output's name, [..., outputs].
        """
        product = self.add("MatMul", x, self.constant(f"{layer}/kernel", kernel), name=f"{layer}/product")
        return self.add("Add", product, self.constant(f"{layer}/bias", bias), name=name or f"{layer}/sum")

    def reshape(self, x: str, shape: tuple[int, ...], name: str) -> str:
        """Adds a reshaping; 0 in the shape keeps an axis as it is."""
        text = "x".join(map(str, shape))
        return self.add("Reshape", x, self.constant(f"shape_{text}", shape, np.int64), name=name)
