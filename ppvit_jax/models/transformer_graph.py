"""Graph of ONNX operators of a Vision Transformer of any family, which computes what `build`'s model computes.

The operators are those of ONNX's operator set 20, the first that has Gelu.
"""

from collections.abc import Sequence

import numpy as np

from ppvit_jax.models.graph import Graph
from ppvit_jax.models.model import Params, leaf
from ppvit_jax.models.vit_config import ViTConfig

# Version of the operator set that the graph needs.
OPERATOR_SET = 20


def transformer_graph(config: ViTConfig, params: Params, mean: Sequence[float], std: Sequence[float]) -> Graph:
    """Describes a Vision Transformer with its normalization of images as a graph.

    Args:
      config: the model's shape.
      params: its parameters.
      mean, std: normalization of the images, (x / 255 - mean) / std for each channel.

    Returns:
      A graph from "images", uint8 [batch, image_size, image_size, 3], to "logits", float32 [batch, num_classes].
    """
    graph = Graph("images", "logits")
    _Transformer(config, params, graph).add_all(mean, std)
    return graph


class _Transformer:
    """Writer of a Vision Transformer's nodes, in the order of `ppvit_jax.models.transformer` and `.encoder`."""

    def __init__(self, config: ViTConfig, params: Params, graph: Graph):
        self.config, self.params, self.graph = config, params, graph
        self.width, self.head_size = config.hidden_size, config.hidden_size // config.heads
        self.patches = config.grid_size**2
        self.prefix = config.layout.prefix_tokens
        self.tokens = self.prefix + self.patches

    def add_all(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Adds the whole model."""
        graph, config, layout = self.graph, self.config, self.config.layout
        x = self._embed(self._normalize(mean, std))
        if self.prefix:
            # Zeros take the places of the tokens before the patches, which the embedding adds.
            pads = graph.constant("Transformer/pads", (0, self.prefix, 0, 0, 0, 0), np.int64)
            x = graph.add("Pad", x, pads, name="Transformer/padded")
        x = graph.add("Add", x, graph.constant("Transformer/tokens", self._embedding()), name="Transformer/input")
        if layout.pre_norm:
            x = self._norm(x, "Transformer/pre_norm")
        for number in range(config.layers):
            x = self._block(x, f"Transformer/encoderblock_{number}")
        self._heads(self._pool(x))

    def _array(self, name: str) -> np.ndarray:
        return np.asarray(leaf(self.params, name), np.float32)

    def _layer(self, name: str, factor: str = "") -> tuple[np.ndarray, np.ndarray]:
        """Returns a dense layer's kernel as a matrix and its bias; the factors of LayerScale are folded into both."""
        bias, kernel = self._array(f"{name}/bias").reshape(-1), self._array(f"{name}/kernel")
        kernel = kernel.reshape(-1, bias.size)
        if factor and self.config.layout.layer_scale:
            scale = self._array(f"{factor}/{self.config.layout.layer_scale}")
            return kernel * scale, bias * scale
        return kernel, bias

    def _dense(self, x: str, name: str, factor: str = "") -> str:
        return self.graph.dense(x, *self._layer(name, factor), name)

    def _norm(self, x: str, name: str, output: str = "") -> str:
        graph = self.graph
        layer = [graph.constant(f"{name}/{part}", self._array(f"{name}/{part}")) for part in ("scale", "bias")]
        output = output or f"{name}/normalized"
        return graph.add("LayerNormalization", x, *layer, name=output, axis=-1, epsilon=self.config.epsilon)

    def _normalize(self, mean: Sequence[float], std: Sequence[float]) -> str:
        """Adds the normalization, as `ppvit_jax.data.preprocess.normalize_images` computes it."""
        graph = self.graph
        # Number 1 is float32 in ONNX.
        x = graph.add("Cast", graph.input, name="normalization/float", to=1)
        scale = graph.constant("normalization/scale", [1 / (255 * s) for s in std])
        offset = graph.constant("normalization/offset", [m / s for m, s in zip(mean, std, strict=True)])
        x = graph.add("Mul", x, scale, name="normalization/scaled")
        return graph.add("Sub", x, offset, name="normalization/normalized")

    def _embed(self, images: str) -> str:
        """Adds the patch embedding, a convolution: [batch, size, size, 3] -> [batch, patches, hidden]."""
        graph, patch = self.graph, self.config.patch_size
        kernel = self._array("embedding/kernel").transpose(3, 2, 0, 1)
        layer = [graph.constant("embedding/kernel", kernel)]
        if self.config.layout.patch_bias:
            layer.append(graph.constant("embedding/bias", self._array("embedding/bias")))
        x = graph.add("Transpose", images, name="embedding/images", perm=[0, 3, 1, 2])
        x = graph.add("Conv", x, *layer, name="embedding/patches", kernel_shape=[patch, patch], strides=[patch, patch])
        x = graph.reshape(x, (0, self.width, self.patches), "embedding/flat")
        return graph.add("Transpose", x, name="embedding/tokens", perm=[0, 2, 1])

    def _embedding(self) -> np.ndarray:
        """Returns the tokens before the patches and the positions of all tokens, as one sum [1, tokens, hidden]."""
        layout = self.config.layout
        embedding = np.zeros((self.tokens, self.width), np.float32)
        if not layout.rotary:
            name = "pos_embedding" if layout.top_positions else "Transformer/posembed_input/pos_embedding"
            positions = self._array(name)[0]
            embedding[: layout.prefix_rows] = positions[: layout.prefix_rows]
            embedding[self.prefix :] = positions[layout.prefix_rows :]
        counts = {"cls": layout.class_token, "dist": layout.distillation_token, "registers": layout.registers}
        prefix = [self._array(name)[0] for name, count in counts.items() if count]
        if prefix:
            embedding[: self.prefix] += np.concatenate(prefix)
        return embedding[None]

    def _split_heads(self, x: str, count: int, name: str) -> str:
        """Adds [batch, count, hidden] -> [batch, heads, count, values of a head]."""
        x = self.graph.reshape(x, (0, count, self.config.heads, self.head_size), f"{name}/by_head")
        return self.graph.add("Transpose", x, name=f"{name}/heads", perm=[0, 2, 1, 3])

    def _rotate(self, x: str, name: str) -> str:
        """Adds the rotation of `ppvit_jax.models.rotary.rotate`, for [batch, heads, tokens, values]."""
        graph = self.graph
        angles = np.pad(self._array("Transformer/rotary/angles")[0], ((self.prefix, 0), (0, 0)))
        cos = graph.constant("Transformer/rotary/cos", np.cos(angles))
        sin = graph.constant("Transformer/rotary/sin", np.sin(angles))
        halves = (f"{name}/first", f"{name}/second")
        a, b = graph.add_several("Split", x, names=halves, axis=-1, num_outputs=2)
        products = {
            f"{half}_{function}": graph.add("Mul", x, table, name=f"{name}/{half}_{function}")
            for half, x in (("first", a), ("second", b))
            for function, table in (("cos", cos), ("sin", sin))
        }
        first = graph.add("Sub", products["first_cos"], products["second_sin"], name=f"{name}/first_rotated")
        second = graph.add("Add", products["second_cos"], products["first_sin"], name=f"{name}/second_rotated")
        return graph.add("Concat", first, second, name=f"{name}/rotated", axis=-1)

    def _attend(self, query: str, key: str, value: str, name: str) -> str:
        """Adds softmax(query key^T / sqrt(values)) value, for [batch, heads, tokens, values]; query may be a constant.

        Returns:
          The name of the result, [batch, tokens of the query, heads, values].
        """
        graph = self.graph
        factor = graph.constant("attention/factor", self.head_size**-0.5)
        transposed = graph.add("Transpose", key, name=f"{name}/key/transposed", perm=[0, 1, 3, 2])
        logits = graph.add("MatMul", query, transposed, name=f"{name}/products")
        logits = graph.add("Mul", logits, factor, name=f"{name}/logits")
        weights = graph.add("Softmax", logits, name=f"{name}/weights", axis=-1)
        mixed = graph.add("MatMul", weights, value, name=f"{name}/mixed")
        return graph.add("Transpose", mixed, name=f"{name}/mixed_by_token", perm=[0, 2, 1, 3])

    def _block(self, x: str, scope: str) -> str:
        """Adds one encoder block, for [batch, tokens, hidden]."""
        graph, name = self.graph, f"{scope}/MultiHeadDotProductAttention_1"
        y = self._norm(x, f"{scope}/LayerNorm_0")
        query, key, value = (
            self._split_heads(self._dense(y, f"{name}/{layer}"), self.tokens, f"{name}/{layer}")
            for layer in ("query", "key", "value")
        )
        if self.config.layout.rotary:
            query, key = self._rotate(query, f"{name}/query"), self._rotate(key, f"{name}/key")
        y = graph.reshape(self._attend(query, key, value, name), (0, self.tokens, self.width), f"{name}/flat")
        y = self._dense(y, f"{name}/out", f"{scope}/LayerScale_0")
        x = graph.add("Add", x, y, name=f"{scope}/after_attention")
        y = self._norm(x, f"{scope}/LayerNorm_2")
        y = self._mlp(y, f"{scope}/MlpBlock_3", f"{scope}/LayerScale_1", gated=self.config.layout.gated)
        return graph.add("Add", x, y, name=f"{scope}/output")

    def _mlp(self, x: str, scope: str, factor: str = "", *, gated: bool = False) -> str:
        graph, hidden = self.graph, self._dense(x, f"{scope}/Dense_0")
        if gated:
            halves = (f"{scope}/gate", f"{scope}/value")
            gate, value = graph.add_several("Split", hidden, names=halves, axis=-1, num_outputs=2)
            gate = self._activate(gate, "silu", scope)
            hidden = graph.add("Mul", gate, value, name=f"{scope}/gated")
        else:
            hidden = self._activate(hidden, self.config.activation, scope)
        return self._dense(hidden, f"{scope}/Dense_1", factor)

    def _activate(self, x: str, activation: str, scope: str) -> str:
        """Adds an activation of `ppvit_jax.models.activations`."""
        graph, name = self.graph, f"{scope}/{activation}"
        if activation in ("gelu", "gelu_tanh"):
            return graph.add("Gelu", x, name=name, approximate="none" if activation == "gelu" else "tanh")
        inner = x
        if activation == "quick_gelu":
            factor = graph.constant("activation/factor", 1.702)
            inner = graph.add("Mul", x, factor, name=f"{scope}/scaled")
        return graph.add("Mul", x, graph.add("Sigmoid", inner, name=f"{scope}/sigmoid"), name=name)

    def _token(self, x: str, number: int, name: str) -> str:
        """Adds the normalized token of a number, [batch, hidden]."""
        index = self.graph.constant(f"Transformer/{name}_number", number, np.int64)
        token = self.graph.add("Gather", x, index, name=f"Transformer/{name}", axis=1)
        return self._norm(token, "Transformer/encoder_norm", f"Transformer/{name}_normalized")

    def _mean(self, x: str) -> str:
        axes = self.graph.constant("Transformer/token_axis", [1], np.int64)
        return self.graph.add("ReduceMean", x, axes, name="Transformer/mean", keepdims=0)

    def _patches(self, x: str) -> str:
        """Adds the patch tokens of all tokens, [batch, patches, hidden]."""
        bounds = {"starts": [self.prefix], "ends": [self.tokens], "axes": [1]}
        inputs = [self.graph.constant(f"Transformer/patch_{name}", value, np.int64) for name, value in bounds.items()]
        return self.graph.add("Slice", x, *inputs, name="Transformer/patches")

    def _pool(self, x: str) -> tuple[str, ...]:
        """Adds the pooling of `ppvit_jax.models.layout.POOLS`; returns the features of each head."""
        graph, pool = self.graph, self.config.layout.pool
        if pool == "token":
            return (self._token(x, 0, "class_token"),)
        if pool == "distilled":
            return self._token(x, 0, "class_token"), self._token(x, 1, "distillation_token")
        patches = self._patches(x) if self.prefix else x
        if pool == "raw_mean":
            return (self._mean(patches),)
        if pool == "mean":
            return (self._norm(self._mean(patches), "Transformer/encoder_norm"),)
        features = self._norm(patches, "Transformer/encoder_norm")
        if pool == "map":
            return (self._attention_pooling(features),)
        mean = self._mean(features)
        if pool == "norm_mean":
            return (mean,)
        return (graph.add("Concat", self._token(x, 0, "class_token"), mean, name="Transformer/features", axis=-1),)

    def _attention_pooling(self, x: str) -> str:
        """Adds multihead attention pooling, [batch, patches, hidden] -> [batch, hidden]."""
        graph, name = self.graph, "MAPHead_0/MultiHeadDotProductAttention_0"
        kernel, bias = self._layer(f"{name}/query")
        query = (self._array("MAPHead_0/probe")[0] @ kernel + bias).reshape(1, self.config.heads, 1, self.head_size)
        key, value = (
            self._split_heads(self._dense(x, f"{name}/{layer}"), self.patches, f"{name}/{layer}")
            for layer in ("key", "value")
        )
        y = self._attend(graph.constant(f"{name}/probe", query), key, value, name)
        y = self._dense(graph.reshape(y, (0, self.width), f"{name}/flat"), f"{name}/out")
        hidden = self._mlp(self._norm(y, "MAPHead_0/LayerNorm_0"), "MAPHead_0/MlpBlock_0")
        return graph.add("Add", y, hidden, name="MAPHead_0/output")

    def _heads(self, features: tuple[str, ...]) -> None:
        """Adds the heads, whose logits are averaged."""
        graph = self.graph
        if self.config.representation_size is not None:
            features = tuple(
                graph.add("Tanh", self._dense(x, "pre_logits"), name="pre_logits/representation") for x in features
            )
        if len(features) == 1:
            graph.dense(features[0], *self._layer("head"), "head", graph.output)
            return
        logits = [self._dense(x, name) for x, name in zip(features, ("head", "head_dist"), strict=True)]
        half = graph.constant("head/half", 0.5)
        graph.add("Mul", graph.add("Add", *logits, name="head/both"), half, name=graph.output)
