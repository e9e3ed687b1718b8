"""A forward pass of the language model over text, as an ONNX graph for ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

# ONNX Runtime 1.20 knows these too; by default, `onnx` writes its own newest.
_OPSET: Final = 18
_IR_VERSION: Final = 9
_MICROSOFT: Final = "com.microsoft"


def step_graph(model: Any) -> bytes:
    """Return the step as a serialized ONNX model.

    Inputs: int64 `tokens` and `positions` [1, m]; int32 `last` [1] and `length` [1], the column of
    the last token and how much of the KV cache is read; float32 `cos` and `sin` [c, head_dim / 2];
    `keys_N` and `values_N` of each layer, float32 [1, key_heads, c, head_dim]. Outputs: `scores`
    [1, m, V], the logits; `keys_N_after` and `values_N_after`, to be bound to the same memory as
    the inputs.
    """
    return _StepGraph(model).serialized()


class _StepGraph:
    """Writes the nodes of the step one after the other.

    A norm is one operator and the activation two, which the runtime joins further. Rotation, KV
    cache and attention are one operator.
    """

    def __init__(self, model: Any) -> None:
        from onnx import helper

        self._onnx = helper
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._declare(model)
        language = model.model.language_model
        x = self._node("Gather", self._weight(language.embed_tokens.weight), "tokens")
        for index, layer in enumerate(language.layers):
            x = self._layer(x, layer, index)
        head = self._weight(model.lm_head.weight.t())
        self._node("MatMul", self._norm(x, language.norm), head, to=["scores"])

    def serialized(self) -> bytes:
        """Return the whole model."""
        parts = (self._nodes, "text_step", self._inputs, self._outputs, self._weights)
        opsets = [self._onnx.make_opsetid("", _OPSET), self._onnx.make_opsetid(_MICROSOFT, 1)]
        model = self._onnx.make_model(
            self._onnx.make_graph(*parts), opset_imports=opsets, ir_version=_IR_VERSION
        )
        return bytes(model.SerializeToString())

    def _declare(self, model: Any) -> None:
        from onnx import TensorProto

        def value(name: str, kind: int, *shape: int | str) -> Any:
            return self._onnx.make_tensor_value_info(name, kind, shape)

        for name in ("tokens", "positions"):
            self._inputs.append(value(name, TensorProto.INT64, 1, "m"))
        for name in ("last", "length"):
            self._inputs.append(value(name, TensorProto.INT32, 1))
        real, layers = TensorProto.FLOAT, model.model.language_model.layers
        half = int(layers[0].self_attn.head_dim) // 2
        self._inputs += [value(name, real, "c", half) for name in ("cos", "sin")]
        self._outputs.append(value("scores", real, 1, "m", int(model.lm_head.out_features)))
        for index, layer in enumerate(layers):
            attention = layer.self_attn
            shape = (1, int(attention.num_key_value_heads), "c", int(attention.head_dim))
            for name in (f"keys_{index}", f"values_{index}"):
                self._inputs.append(value(name, real, *shape))
                self._outputs.append(value(f"{name}_after", real, *shape))

    def _layer(self, x: str, layer: Any, index: int) -> str:
        mixed = self._attend(self._norm(x, layer.input_layernorm), layer.self_attn, index)
        x = self._node("Add", x, self._project(mixed, layer.self_attn.o_proj))
        inner = self._norm(x, layer.post_attention_layernorm)
        gate = self._project(inner, layer.mlp.gate_proj)
        gate = self._node("Mul", gate, self._node("Sigmoid", gate))
        inner = self._node("Mul", gate, self._project(inner, layer.mlp.up_proj))
        return self._node("Add", x, self._project(inner, layer.mlp.down_proj))

    def _attend(self, x: str, attention: Any, index: int) -> str:
        qkv = self._project(x, attention.q_proj, attention.k_proj, attention.v_proj)
        names = (f"keys_{index}", f"values_{index}")
        mixed = f"mixed_{index}"
        return self._node(
            "GroupQueryAttention",
            *(qkv, "", "", *names, "last", "length", "cos", "sin", "positions"),
            to=[mixed, *(f"{name}_after" for name in names)],
            domain=_MICROSOFT,
            num_heads=int(attention.num_heads),
            kv_num_heads=int(attention.num_key_value_heads),
            scale=float(attention.scaling),
            do_rotary=1,
        )

    def _project(self, x: str, *modules: Any) -> str:
        """Apply projections of the same input; their results lie side by side."""
        x = self._node("MatMul", x, self._weight(torch.cat([m.weight for m in modules]).t()))
        if any(module.bias is None for module in modules):
            return x
        return self._node("Add", x, self._weight(torch.cat([m.bias for m in modules])))

    def _norm(self, x: str, module: Any) -> str:
        weight, eps = self._weight(module.weight), float(module.variance_epsilon)
        return self._node("SimplifiedLayerNormalization", x, weight, axis=-1, epsilon=eps)

    def _weight(self, tensor: Tensor) -> str:
        from onnx import numpy_helper

        name = f"weight_{len(self._weights)}"
        array = np.ascontiguousarray(tensor.detach().numpy())
        self._weights.append(numpy_helper.from_array(array, name))
        return name

    def _node(self, kind: str, *inputs: str, to: Sequence[str] = (), **attributes: Any) -> str:
        """Add a node; return its first output."""
        outputs = list(to) or [f"{kind}_{len(self._nodes)}"]
        self._nodes.append(self._onnx.make_node(kind, inputs, outputs, **attributes))
        return outputs[0]
