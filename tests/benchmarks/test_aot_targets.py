"""The training step of ViT-B/16, compiled for GPUs and TPUs that this machine does not have.

Nothing is replaced in the program but JAX's two checks for cuDNN; see `benchmarks.aot.targets.assuming_cudnn`.
"""

import dataclasses
import functools
import math

import pytest

from benchmarks.aot import hlo, summary, targets
from benchmarks.aot.step import Plan, compile_step
from benchmarks.aot.summary import Planned
from ppvit_jax import models
from ppvit_jax.training import scaling

pytestmark = [
    pytest.mark.slow,
    # JAX keeps the programs of other devices in its cache, and cannot read them from it.
    pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache entry"),
]

# Two encoder blocks show whatever all twelve do, and compile in seconds.
LAYERS = 2
BATCH = {"gpu": 64, "tpu": 32}
HIDDEN, PATCHES = 768, 196
# With the class token, and padded to a multiple of 8 or 16.
TOKENS = range(PATCHES + 1, PATCHES + 13)
SHARDINGS = ("data_parallel", "fully_sharded")


@dataclasses.dataclass(frozen=True)
class Step:
    """A compiled plan, and its program."""

    planned: Planned
    program: hlo.Program

    @property
    def images(self) -> int:
        """Images on each chip."""
        return self.planned.plan.batch_size

    def exchanged(self) -> dict[str, float]:
        """Returns the bytes of the arrays that are exchanged, by collective; those of small tensors are left out."""
        found: dict[str, float] = {}
        for one in self.planned.exchanges:
            found[one.op] = found.get(one.op, 0.0) + one.bytes
        return {op: size for op, size in found.items() if size > 0.1 * self.parameters()}

    def parameters(self) -> int:
        """Number of parameters of the model."""
        return sum(map(math.prod, models.parameter_shapes(self.planned.plan.model_config()).values()))


@functools.cache
def compiled(
    target: str,
    sharding: str,
    batch_size: int = 0,
    layers: int = LAYERS,
    reduce_dtype: str = "float32",
    model: str = "ViT-B/16",
    tuning: str = "full",
    remat: str = "none",
    accumulation: int = 1,
) -> Step:
    """Compiles a step that encrypts its images, once; skips the test if the compiler is not installed."""
    machine = targets.parse(target)
    if reason := targets.missing(machine):
        pytest.skip(reason)
    plan = Plan(
        machine=machine,
        batch_size=batch_size or BATCH[machine.chip.platform],
        encryption="bs+ps",
        sharding=sharding,
        reduce_dtype=reduce_dtype,
        layers=layers,
        model=model,
        tuning=tuning,
        remat=remat,
        accumulation=accumulation,
    )
    step = compile_step(plan)
    return Step(summary.read(plan, step), hlo.parse(step.text))


ONE = ["h100", "v5e"]
FOUR = [(f"{target}-4", sharding) for target in ONE for sharding in SHARDINGS]
ALL = [(target, "data_parallel") for target in ONE] + FOUR
ON_GPUS = [case for case in ALL if case[0].startswith("h")]


@pytest.fixture(scope="module", autouse=True)
def _environment():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in targets.TPU_ENVIRONMENT.items():
            patch.setenv(name, value)
        yield
    compiled.cache_clear()


@pytest.mark.parametrize(("target", "sharding"), ALL)
def test_the_step_compiles_and_fits_the_memory(target, sharding):
    step = compiled(target, sharding)
    assert step.planned.fits == "yes"
    assert step.planned.time is not None and 0 < step.planned.time.seconds < 1


@pytest.mark.parametrize(("target", "sharding"), ON_GPUS)
def test_a_gpu_does_not_transpose_the_residual_stream(target, sharding):
    step = compiled(target, sharding)
    smallest = 2 * step.images * PATCHES * HIDDEN
    # The kernel that encrypts works on images; see the next test but one.
    working = [one for one in step.planned.kernels if not one.gathers]
    assert not [one for one in working if one.transposes and one.written >= smallest]


@pytest.mark.parametrize(("target", "sharding"), ON_GPUS)
def test_a_gpu_keeps_no_attention_weights(target, sharding):
    step = compiled(target, sharding)
    assert not [array for array in step.program.arrays() if sum(size in TOKENS for size in array.shape) > 1]
    assert "cudnn" in {one.kind for one in step.planned.kernels}


@pytest.mark.parametrize(
    ("model", "tuning", "remat"),
    [
        ("DeiT-B/16-distilled", "full", "none"),
        ("DINOv2-B/14", "full", "none"),
        ("DINOv3-S+/16", "full", "none"),
        ("SigLIP-B/16", "full", "none"),
        ("CLIP-B/16", "full", "none"),
        ("ViT-B/16", "lora", "none"),
        ("ViT-B/16", "probe", "none"),
        ("ViT-B/16", "full", "blocks"),
    ],
)
def test_every_family_and_recipe_has_the_fast_step_of_a_gpu(model, tuning, remat):
    step = compiled("h100", "data_parallel", model=model, tuning=tuning, remat=remat)
    config = step.planned.plan.model_config()
    assert isinstance(config, models.ViTConfig)
    patches = config.grid_size**2
    tokens = range(patches, patches + config.layout.prefix_tokens + 9)
    assert not [array for array in step.program.arrays() if sum(size in tokens for size in array.shape) > 1]
    assert "cudnn" in {one.kind for one in step.planned.kernels}
    smallest = 2 * step.images * patches * config.hidden_size
    working = [one for one in step.planned.kernels if not one.gathers]
    # Attention pooling, once in a model, takes the tokens of each image.
    allowed = 1 if config.layout.pool == "map" else 0
    assert len([one for one in working if one.transposes and one.written >= smallest]) <= allowed


def test_a_tpu_is_faster_in_the_parts_that_a_run_chooses():
    whole, parts = (compiled("v5e", "data_parallel", batch_size=64, accumulation=number) for number in (1, 0))
    assert parts.planned.plan.parts == 4 and parts.planned.loops == [3]
    assert whole.planned.time is not None and parts.planned.time is not None
    assert parts.planned.time.seconds < 0.9 * whole.planned.time.seconds
    assert parts.planned.needed < whole.planned.needed


@pytest.mark.parametrize(("target", "sharding"), ON_GPUS)
def test_encryption_is_one_kernel_with_the_cut_into_patches_and_the_normalization(target, sharding):
    step = compiled(target, sharding)
    (gathering,) = [one for one in step.planned.kernels if one.gathers]
    # It writes what the first product reads: bfloat16, in patches.
    assert gathering.written == 2 * step.images * PATCHES * HIDDEN and not gathering.transposes


@pytest.mark.parametrize("target", ["h100-4", "v5e-4"])
def test_data_parallel_devices_exchange_each_gradient_once_and_nothing_else(target):
    step = compiled(target, "data_parallel")
    assert step.exchanged().keys() == {"all-reduce"}
    assert 3.95 <= step.exchanged()["all-reduce"] / step.parameters() <= 4.05


@pytest.mark.parametrize("target", ["h100-4", "v5e-4"])
def test_gradients_of_kernels_are_added_up_in_bfloat16_if_the_configuration_says_so(target):
    step = compiled(target, "data_parallel", reduce_dtype="bfloat16")
    sizes = {one.dtype: one.bytes / step.parameters() for one in step.planned.exchanges if one.op == "all-reduce"}
    # The position embedding and the biases are in float32.
    assert 1.9 <= sizes["bf16"] <= 2.05 and sizes["f32"] < 0.1


@pytest.mark.parametrize("target", ["h100-4", "v5e-4"])
def test_fully_sharded_devices_exchange_parameters_and_gradients_but_no_activations(target):
    step = compiled(target, "fully_sharded")
    found = step.exchanged()
    assert found.keys() <= {"all-gather", "reduce-scatter", "collective-permute"}
    # Parameters are gathered once or twice, and gradients scattered, in bfloat16 or float32. A TPU scatters some by
    # permutations between the parts of a product, which send three quarters of the bytes.
    assert 1.9 <= found["all-gather"] / step.parameters() <= 8.1
    scattered = found.get("reduce-scatter", 0) + found.get("collective-permute", 0)
    assert 1.4 <= scattered / step.parameters() <= 4.1
    # Each device keeps a quarter of the parameters and of the momentum.
    whole = compiled(target, "data_parallel").planned.compiled
    assert whole is not None and step.planned.compiled is not None
    assert step.planned.compiled.arguments < 0.4 * whole.arguments


@pytest.mark.parametrize(("target", "sharding"), ALL)
def test_the_arithmetic_of_ppvit_scaling_is_that_of_the_program(target, sharding):
    # What a TPU needs once, and not for each layer, is a large part of the memory of two layers.
    _assert_estimated(compiled(target, sharding, layers=4 if target == "v5e" else LAYERS))


def _assert_estimated(step: Step) -> None:
    """Asserts that `ppvit scaling` tells memory, traffic and products of a step as its program has them."""
    plan, program = step.planned.plan, step.planned.compiled
    assert program is not None
    count, config = plan.machine.count, plan.model_config()
    assert isinstance(config, models.ViTConfig)
    setup = scaling.Setup(
        batch_size=step.images * count,
        devices=count,
        sharding=plan.sharding,
        accumulation=plan.parts,
        tuning=plan.tuning,
        remat=plan.remat,
    )
    cost = scaling.step_cost(config, setup)
    assert cost.memory == pytest.approx(program.peak, rel=0.15)
    assert cost.sent == pytest.approx(sum(one.sent(count) for one in step.planned.exchanges), rel=0.15)
    flops = program.flops or sum(one.times * one.flops for one in step.planned.kernels)
    assert cost.flops == pytest.approx(flops, rel=0.05)


@pytest.mark.parametrize(
    ("target", "model"),
    [
        ("h100", "DeiT-B/16-distilled"),
        ("h100", "DeiT-B/16-III"),
        ("h100", "DINOv2-B/14"),
        ("h100", "DINOv2-g/14"),
        ("h100", "DINOv3-S+/16"),
        ("h100", "SigLIP-B/16"),
        ("h100", "CLIP-B/16"),
        ("v5e", "DINOv2-B/14"),
    ],
)
def test_the_arithmetic_is_that_of_the_program_for_every_family(target, model):
    _assert_estimated(compiled(target, "data_parallel", model=model))


@pytest.mark.parametrize(
    ("target", "sharding", "tuning", "remat"),
    [
        ("h100", "data_parallel", "lora", "none"),
        ("h100", "data_parallel", "probe", "none"),
        ("h100", "data_parallel", "full", "blocks"),
        ("h100", "data_parallel", "lora", "blocks"),
        ("h100-4", "data_parallel", "full", "blocks"),
        ("h100-4", "data_parallel", "lora", "none"),
        ("h100-4", "fully_sharded", "lora", "none"),
        ("h100-4", "fully_sharded", "probe", "none"),
        ("v5e", "data_parallel", "lora", "none"),
    ],
)
def test_the_arithmetic_is_that_of_the_program_for_tuning_and_recomputation(target, sharding, tuning, remat):
    layers = 4 if target == "v5e" else LAYERS
    _assert_estimated(compiled(target, sharding, layers=layers, tuning=tuning, remat=remat))


def test_the_whole_model_at_batch_256_moves_at_most_105_gigabytes_in_900_kernels():
    step = compiled("h200", "data_parallel", batch_size=256, layers=0)
    kernels = step.planned.kernels
    assert sum(one.times for one in kernels) <= 900
    assert sum(one.times * one.bytes for one in kernels) <= 105e9
    assert step.planned.time is not None and step.planned.time.seconds <= 62e-3


def test_attention_by_name_is_the_one_that_is_compiled():
    machine = targets.parse("h200")
    if reason := targets.missing(machine):
        pytest.skip(reason)
    plan = Plan(machine=machine, batch_size=8, layers=1, attention="xla")
    assert "cudnn" not in {one.kind for one in summary.read(plan, compile_step(plan)).kernels}
