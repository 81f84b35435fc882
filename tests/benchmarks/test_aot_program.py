"""Kernels, collectives and expected time, read from the text of compiled programs."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.aot import estimate, hlo, targets
from benchmarks.aot.collectives import Exchange, exchanges
from benchmarks.aot.kernels import Kernel, kernels

# A program for a GPU, shortened. Its sizes are chosen so that every number below can be counted by hand.
GPU = """HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%fused_transpose (p0: bf16[64,32]) -> bf16[32,64] {
  %p0 = bf16[64,32]{1,0} parameter(0)
  ROOT %transpose.1 = bf16[32,64]{1,0} transpose(%p0), dimensions={1,0}
}

%fused_gather (p0: u8[100], p1: s32[50]) -> (bf16[50], f32[]) {
  %p0.1 = u8[100]{0} parameter(0)
  %p1.1 = s32[50]{0} parameter(1)
  %gather.1 = u8[50]{0} gather(%p0.1, %p1.1), offset_dims={}, slice_sizes={1}
  %convert.1 = bf16[50]{0} convert(%gather.1)
  %zero = f32[] constant(0)
  %reduce.1 = f32[] reduce(%convert.1, %zero), dimensions={0}, to_apply=%add
  ROOT %tuple.1 = (bf16[50]{0}, f32[]) tuple(%convert.1, %reduce.1)
}

%gemm_fusion (a: f32[16,32], b: f32[32,8]) -> f32[16,8] {
  %a = f32[16,32]{1,0} parameter(0)
  %b = f32[32,8]{1,0} parameter(1)
  ROOT %dot.1 = f32[16,8]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}, \
operand_precision={highest,highest}
}

%body (state: (s32[], f32[16])) -> (s32[], f32[16]) {
  %state = (s32[], f32[16]{0}) parameter(0)
  %number = s32[] get-tuple-element(%state), index=0
  %vector = f32[16]{0} get-tuple-element(%state), index=1
  %negated = f32[16]{0} negate(%vector)
  %all-reduce.9 = f32[16]{0} all-reduce(%negated), channel_id=9, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %next = (s32[], f32[16]{0}) tuple(%number, %all-reduce.9)
}

%condition (state.1: (s32[], f32[16])) -> pred[] {
  %state.1 = (s32[], f32[16]{0}) parameter(0)
  %number.1 = s32[] get-tuple-element(%state.1), index=0
  %five = s32[] constant(5)
  ROOT %less = pred[] compare(%number.1, %five), direction=LT
}

ENTRY %main (w: bf16[64,32], i: u8[100], j: s32[50], a.1: f32[16,32], b.1: f32[32,8], v: f32[16]) -> f32[16] {
  %w = bf16[64,32]{1,0} parameter(0), metadata={op_name="state['w']"}
  %i = u8[100]{0} parameter(1)
  %j = s32[50]{0} parameter(2)
  %a.1 = f32[16,32]{1,0} parameter(3)
  %b.1 = f32[32,8]{1,0} parameter(4)
  %v = f32[16]{0} parameter(5)
  %one = s32[] constant(1)
  %input_transpose_fusion = bf16[32,64]{1,0} fusion(%w), kind=kInput, calls=%fused_transpose
  %cublas.1 = (bf16[64,64]{1,0}, s8[4096]{0}) custom-call(%w, /*index=1*/%input_transpose_fusion, %w), \
custom_call_target="__cublas$lt$matmul", metadata={op_name="jit(step)/(a, b)"}, \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],\
"rhs_contracting_dimensions":["0"]},"precision_config":{"operand_precision":["DEFAULT","DEFAULT"]}}}
  %product = bf16[64,64]{1,0} get-tuple-element(%cublas.1), index=0
  %loop_gather_fusion = (bf16[50]{0}, f32[]) fusion(%i, %j), kind=kInput, calls=%fused_gather
  %gemm_fusion_dot = f32[16,8]{1,0} fusion(%a.1, %b.1), kind=kCustom, calls=%gemm_fusion
  %attention = (bf16[2,3,8,4]{3,1,2,0}, u8[0]{0}) custom-call(%product, %product, %product), \
custom_call_target="__cudnn$fmhaSoftmaxBackward", backend_config={"cudnn_fmha_backend_config": \
{"intermediate_tensor_shape": {"element_type": "BF16", "dimensions": ["2", "3", "8", "8"], "tuple_shapes": []}}}
  %all-gather-start = ((bf16[32,64]{1,0}), bf16[128,64]{1,0}) all-gather-start(%input_transpose_fusion), channel_id=1
  %all-gather-done = bf16[128,64]{1,0} all-gather-done(%all-gather-start)
  %reduce-scatter.1 = f32[4]{0} reduce-scatter(%v), channel_id=2, dimensions={0}, to_apply=%add
  %first = (s32[], f32[16]{0}) tuple(%one, %v)
  %loop = (s32[], f32[16]{0}) while(%first), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  ROOT %result = f32[16]{0} get-tuple-element(%loop), index=1
}
"""


def by_name(program: hlo.Program) -> dict[str, Kernel]:
    return {kernel.name: kernel for kernel in kernels(program)}


def test_every_kernel_of_a_program_is_named_with_its_kind_and_its_bytes():
    found = by_name(hlo.parse(GPU))
    assert {name: kernel.kind for name, kernel in found.items()} == {
        "input_transpose_fusion": "transpose",
        "cublas.1": "gemm",
        "loop_gather_fusion": "reduce",
        "gemm_fusion_dot": "gemm",
        "attention": "cudnn",
        "all-gather-start": "collective",
        "reduce-scatter.1": "collective",
        "negated": "negate",
        "all-reduce.9": "collective",
    }
    # The same operand is read once, and the workspace of cuBLAS not at all.
    assert (found["cublas.1"].read, found["cublas.1"].written) == (2 * 64 * 32 * 2, 64 * 64 * 2)
    assert (found["loop_gather_fusion"].read, found["loop_gather_fusion"].written) == (100 + 50 * 4, 50 * 2 + 4)
    assert found["cublas.1"].op_name == "jit(step)/(a, b)"
    assert (found["input_transpose_fusion"].transposes, found["loop_gather_fusion"].gathers) == (1, 1)


def test_products_are_counted_with_their_precision():
    found = by_name(hlo.parse(GPU))
    assert (found["cublas.1"].flops, found["cublas.1"].precision) == (2 * 64 * 32 * 64, "bfloat16")
    assert (found["gemm_fusion_dot"].flops, found["gemm_fusion_dot"].precision) == (2 * 16 * 32 * 8, "float32")
    # The backward pass of attention has five products of [8, 8] weights and 4 features, for 2 images and 3 heads.
    assert found["attention"].flops == 5 * 2 * (2 * 3 * 8 * 8) * 4
    assert found["negated"].flops == 0 and found["negated"].precision == ""
    rounded = hlo.parse(GPU.replace("operand_precision={highest,highest}", "operand_precision={default,default}"))
    assert by_name(rounded)["gemm_fusion_dot"].precision == "tf32"


def test_the_body_of_a_loop_counts_as_often_as_it_runs_and_its_condition_is_no_work():
    found = by_name(hlo.parse(GPU))
    assert found["negated"].times == 5 and found["cublas.1"].times == 1 and "less" not in found


def test_collectives_are_counted_by_operation_dtype_and_whole_bytes():
    found = {(one.op, one.dtype): one for one in exchanges(hlo.parse(GPU))}
    assert found == {
        ("all-gather", "bf16"): Exchange("all-gather", "bf16", 1, 128 * 64 * 2),
        ("reduce-scatter", "f32"): Exchange("reduce-scatter", "f32", 1, 16 * 4),
        ("all-reduce", "f32"): Exchange("all-reduce", "f32", 5, 5 * 16 * 4),
    }
    sent = {op: one.sent(4) for (op, _), one in found.items()}
    assert sent == {"all-gather": 0.75 * 128 * 64 * 2, "reduce-scatter": 0.75 * 64, "all-reduce": 1.5 * 5 * 64}
    assert Exchange("collective-permute", "bf16", 1, 10.0).sent(4) == 10


def test_an_array_that_exists_inside_a_fusion_alone_is_not_in_memory():
    arrays = hlo.parse(GPU).arrays()
    assert arrays[hlo.Array("bf16", (50,))] == 1 and arrays[hlo.Array("u8", (50,))] == 0
    assert arrays[hlo.Array("bf16", (32, 64))] == 2


TPU = """HloModule jit_step

%all-reduce-scatter.3 (input: bf16[64,8]) -> bf16[16,8] {
  %input = bf16[64,8]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.4 = bf16[64,8]{1,0:T(8,128)(2,1)} all-reduce(%input), channel_id=3, replica_groups={{0,1,2,3}}
  %place = s32[] partition-id()
  ROOT %part = bf16[16,8]{1,0:T(8,128)(2,1)} dynamic-slice(%all-reduce.4, %place), dynamic_slice_sizes={16,8}
}

%async_start (q: bf16[2,8]) -> bf16[8,8] {
  %q = bf16[2,8]{1,0} parameter(0)
  ROOT %all-gather.5 = bf16[8,8]{1,0} all-gather(%q), channel_id=4, dimensions={0}
}

%async_middle (r: bf16[2,8]) -> bf16[8,8] {
  %r = bf16[2,8]{1,0} parameter(0)
  ROOT %all-gather.6 = bf16[8,8]{1,0} all-gather(%r), channel_id=4, dimensions={0}
}

%never (s: f32[8]) -> f32[8] {
  %s = f32[8]{0} parameter(0)
  ROOT %all-reduce.7 = f32[8]{0} all-reduce(%s), channel_id=5
}

%until_three (t.1: (s32[], bf16[16,8])) -> pred[] {
  %three = s32[]{:T(128)} constant(3)
  %t.1 = (s32[]{:T(128)}, bf16[16,8]{1,0}) parameter(0)
  %number = s32[]{:T(128)} get-tuple-element(%t.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%number, %three), direction=LT
}

%body (t: (bf16[16,8])) -> (bf16[16,8]) {
  %t = (bf16[16,8]{1,0}) parameter(0)
  %u = bf16[16,8]{1,0} get-tuple-element(%t), index=0
  %fusion.8 = bf16[16,8]{1,0} fusion(%u), kind=kLoop, calls=%missing, backend_config={"estimated_cycles":"1000"}
  ROOT %again = (bf16[16,8]{1,0}) tuple(%fusion.8)
}

ENTRY %main (x: bf16[64,8], y: bf16[2,8]) -> (bf16[16,8], bf16[8,8]) {
  %x = bf16[64,8]{1,0} parameter(0)
  %y = bf16[2,8]{1,0} parameter(1)
  %fusion.1 = bf16[16,8]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.3, \
backend_config={"flag":"","estimated_cycles":"300"}
  %fusion.2 = bf16[8,8]{1,0:S(1)} fusion(%y), kind=kCustom, calls=%async_start
  %fusion.3 = bf16[8,8]{1,0:S(1)} fusion(%y), kind=kLoop, calls=%async_middle, backend_config={"estimated_cycles":"50"}
  %start = (bf16[16,8]{1,0}) tuple(%fusion.1)
  %loop = (bf16[16,8]{1,0}) while(%start), condition=%until_three, body=%body
  %last = bf16[16,8]{1,0} get-tuple-element(%loop), index=0
  ROOT %both = (bf16[16,8]{1,0}, bf16[8,8]{1,0}) tuple(%last, %fusion.3)
}
"""


def test_a_tpus_collectives_inside_fusions_are_counted_once():
    found = {(one.op, one.count, one.bytes) for one in exchanges(hlo.parse(TPU))}
    assert found == {("reduce-scatter", 1, 64 * 8 * 2), ("all-gather", 1, 8 * 8 * 2)}


def test_a_tpus_time_is_the_sum_of_the_cycles_that_xla_expects():
    program = hlo.parse(TPU)
    assert estimate.cycles(program) == 300 + 50 + 3 * 1000
    machine = targets.parse("v5e-4")
    expected = estimate.estimate(machine, program, kernels(program), exchanges(program))
    assert expected.seconds == pytest.approx(3350 / 1.5e9)


def test_a_loop_whose_end_nothing_tells_is_counted_once_and_reported():
    assert hlo.parse(TPU).loops() == [3] and hlo.parse(GPU).loops() == [5]
    unknown = hlo.parse(TPU.replace("constant(3)", "custom-call()"))
    assert unknown.loops() == [0] and estimate.cycles(unknown) == 300 + 50 + 1000


def test_a_gpus_time_is_that_of_its_kernels_and_its_collectives():
    program = hlo.parse(GPU)
    one, four = (
        estimate.estimate(targets.parse(name), program, kernels(program), exchanges(program))
        for name in ("h200", "h200-4")
    )
    # Ten kernels so small that only their launches count; collectives are not among them.
    assert one.kernels == pytest.approx(10 * 1.5e-6, rel=0.01) and one.exchanges == 0
    assert four.exchanges == pytest.approx((0.75 * 16384 + 0.75 * 64 + 1.5 * 320) / 450e9)
    assert four.seconds == four.kernels + four.exchanges


STEPS = json.loads((Path(__file__).parent / "h200_steps.json").read_text())


@pytest.mark.parametrize("step", STEPS, ids=[step["program"] for step in STEPS])
def test_the_estimate_reproduces_the_steps_on_which_it_was_fitted(step):
    bandwidth = targets.CHIPS["h200"].bandwidth
    seconds = sum(
        count * estimate.kernel_seconds(moved, flops, step["precision"], bandwidth)
        for moved, flops, count in step["kernels"]
    )
    assert 1e3 * seconds == pytest.approx(step["milliseconds"], rel=0.02)


def test_an_h100_has_less_bandwidth_and_the_same_products():
    h100, h200 = (targets.CHIPS[name].bandwidth for name in ("h100", "h200"))
    copies = [estimate.kernel_seconds(1e9, 0, "", bandwidth) for bandwidth in (h100, h200)]
    products = [estimate.kernel_seconds(1e6, 1e12, "bfloat16", bandwidth) for bandwidth in (h100, h200)]
    assert copies[0] / copies[1] == pytest.approx(4.8 / 3.352, rel=0.01) and products[0] == products[1]


@pytest.fixture(scope="module")
def compiled():
    """A compiled product of known size, whose result goes five times through a loop."""

    def multiply(left, right, square):
        def again(carry, _):
            return jnp.tanh(carry @ square), None

        return jax.lax.scan(again, left @ right, None, length=5)[0]

    shapes = [jax.ShapeDtypeStruct(shape, np.float32) for shape in ((48, 80), (80, 112), (112, 112))]
    return jax.jit(multiply).lower(*shapes).compile()


def test_the_products_of_a_program_that_xla_compiled_here_are_all_found(compiled):
    found = [kernel for kernel in kernels(hlo.parse(compiled.as_text())) if kernel.flops]
    assert sum(kernel.times * kernel.flops for kernel in found) == 2 * 48 * 80 * 112 + 5 * 2 * 48 * 112 * 112
    assert sorted(kernel.times for kernel in found) == [1, 5]
    first = next(kernel for kernel in found if kernel.times == 1)
    assert (first.read, first.written) == (4 * (48 * 80 + 80 * 112), 4 * 48 * 112)


def test_text_without_a_program_is_an_error():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("HloModule empty\n")


def test_shapes_of_all_dtypes_are_read():
    arrays = hlo.parse_arrays("(f32[8,2]{1,0:T(8,128)S(1)}, s4[6]{0}, pred[], f8e4m3fn[10]{0}, token[], u32[]{:S(2)})")
    assert [array.bytes for array in arrays] == [64, 3, 1, 10, 4]
