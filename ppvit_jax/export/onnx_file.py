"""A Vision Transformer as an ONNX file (https://onnx.ai), made from the graph of its layout.

The graph is written by hand and not converted: jax2onnx (0.17) traces any program, but needs an older orbax-checkpoint
than training does, and equinox and netron. The standard operators for each layer are what runtimes fuse.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppvit_jax import models
from ppvit_jax.checkpoint import Metadata
from ppvit_jax.errors import UserError, require
from ppvit_jax.export.description import describe, to_texts
from ppvit_jax.files import written_aside
from ppvit_jax.models import Params, ViTConfig
from ppvit_jax.models.graph import Graph
from ppvit_jax.models.transformer_graph import OPERATOR_SET, transformer_graph

if TYPE_CHECKING:
    import onnx

# Version of the file format that came with the operator set.
_FORMAT = 9
# Protobuf's messages have less than 2 GiB. Weights of larger models are in a second file.
LARGEST_WEIGHTS = 2**31 - 2**26
# Offsets in the second file are multiples of it, so that programs can map the file into memory.
_ALIGNMENT = 4096


def check_shape(shape: models.ModelConfig) -> ViTConfig:
    """Returns the shape of a model that can be written as ONNX.

    Raises:
      UserError: the model is no Vision Transformer, or its compute dtype is not float32, or the library is missing.
    """
    require("an .onnx file", "onnx", "onnx")
    if not isinstance(shape, ViTConfig):
        raise UserError(
            f"ONNX is for Vision Transformers, and the model is a {models.family_of(shape).title}: give --output a "
            "name that ends with .stablehlo"
        )
    if shape.dtype != "float32":
        raise UserError(
            f"ONNX files are in float32, because onnxruntime multiplies no {shape.dtype} on a CPU: leave --dtype out, "
            "or give --output a name that ends with .stablehlo"
        )
    return shape


def weights_path(path: Path) -> Path:
    """Returns the path of the second file, with the weights of a model that is larger than 2 GB."""
    return path.with_name(f"{path.name}.data")


def write_onnx(
    path: Path, shape: models.ModelConfig, params: Params, metadata: Metadata, largest: int = LARGEST_WEIGHTS
) -> None:
    """Writes a Vision Transformer as ONNX, whole or not at all.

    Args:
      path: the file, which is replaced if it exists. Weights of more than `largest` bytes are in a second file,
        `weights_path(path)`, which has to stay beside it.
      shape: the model's shape.
      params: its parameters.
      metadata: the record of its checkpoint.
      largest: most bytes of weights in the first file.

    Raises:
      UserError: see `check_shape`; or the second file exists.
    """
    shape = check_shape(shape)
    graph = transformer_graph(shape, params, *metadata.normalization)
    # The others are numbers that the program needs, such as shapes, and stay in the first file.
    weights = {name: array for name, array in graph.constants.items() if array.nbytes >= _ALIGNMENT}
    if sum(array.nbytes for array in weights.values()) <= largest:
        with written_aside(path) as aside:
            aside.write_bytes(_to_model(graph, shape, metadata, {}, "").SerializeToString())
        return
    second = weights_path(path)
    if second.exists():
        raise UserError(f"{second} exists, but the model needs this name for its weights: choose another name")
    try:
        # The second file is complete before the first one appears.
        with written_aside(path) as aside, written_aside(second) as weights_aside:
            places = _write_weights(weights_aside, weights)
            aside.write_bytes(_to_model(graph, shape, metadata, places, second.name).SerializeToString())
    except BaseException:
        second.unlink(missing_ok=True)
        raise


def _write_weights(path: Path, weights: dict[str, np.ndarray]) -> dict[str, int]:
    """Writes arrays one after the other, and returns the offset of each."""
    places = {}
    with path.open("wb") as file:
        for name, array in weights.items():
            file.write(bytes(-file.tell() % _ALIGNMENT))
            places[name] = file.tell()
            file.write(array.data)
    return places


def _to_model(
    graph: Graph, shape: ViTConfig, metadata: Metadata, places: dict[str, int], file: str
) -> "onnx.ModelProto":
    """Returns the message of a graph.

    Args:
      graph: the graph.
      shape: the model's shape.
      metadata: the record of its checkpoint.
      places: offsets of the arrays that are in another file.
      file: name of that file.
    """
    import onnx
    from onnx import helper

    size = shape.image_size
    nodes = [
        helper.make_node(node.operator, node.inputs, node.outputs, name=node.outputs[0], **node.attributes)
        for node in graph.nodes
    ]
    constants = [_to_tensor(name, array, places.get(name), file) for name, array in graph.constants.items()]
    images = helper.make_tensor_value_info(graph.input, onnx.TensorProto.UINT8, ("batch", size, size, 3))
    logits = helper.make_tensor_value_info(graph.output, onnx.TensorProto.FLOAT, ("batch", shape.num_classes))
    model = helper.make_model(
        helper.make_graph(nodes, "ppvit", [images], [logits], constants),
        opset_imports=[helper.make_opsetid("", OPERATOR_SET)],
        ir_version=_FORMAT,
        producer_name="ppvit_jax",
    )
    helper.set_model_props(model, to_texts(describe(shape, metadata)))
    return model


def _to_tensor(name: str, array: np.ndarray, offset: int | None, file: str) -> "onnx.TensorProto":
    from onnx import TensorProto, helper, numpy_helper

    if offset is None:
        return numpy_helper.from_array(array, name)
    tensor = TensorProto(
        name=name,
        dims=array.shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in {"location": file, "offset": offset, "length": array.nbytes}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor
