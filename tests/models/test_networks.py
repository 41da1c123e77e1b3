"""The comparison networks: what they compute, their size, the images they take."""

import math
import multiprocessing
import sys
import warnings
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy.interpolate import BSpline
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from anatosegnet.config.composition import choices_of, config_directory
from anatosegnet.config.objects import instantiate
from anatosegnet.config.recorded import read_config, require_admitted, written_config
from anatosegnet.errors import UserError
from anatosegnet.models import MedT, UNeXt
from anatosegnet.models.medt import from_patches, to_patches
from anatosegnet.models.nnunet import planned_strides
from anatosegnet.models.ukan import KANLinear
from anatosegnet.models.unext import shift
from anatosegnet.network import trained_network
from anatosegnet.run import Run
from anatosegnet.train import train
from tests.running import compose, compose_small
from tests.tiny import fit, tiny_data, tiny_module

GOLDEN = Path(__file__).parents[1] / "golden" / "networks.npz"

# parameters and multiply-adds (1e9, at SIZE) with one class: what FACTS counts on the public
# implementations. U-KAN's and those of libraries are our own. MedT's is 35,553 short of the
# public 1,564,202, which holds weights that it never uses: a 1×1 convolution in each block of its
# local branch, and a second head; they would stop distributed training.
COUNTS = {
    "unet_classic": (34_527_041, 65.35),
    "attention_unet": (34_878_573, 66.43),
    "unet_plus_plus": (26_904_137, 37.52),
    "unet_3_plus": (26_971_777, 197.65),
    "transunet": (105_322_001, 38.42),
    "medt": (1_564_202 - 35_553, 2.32),
    "swin_unet": (27_168_132, 6.07),
    "unext": (1_471_921, 0.56),
    "cmunet": (49_932_353, 90.94),
    "cmunext": (3_149_185, 7.23),
    "mobile_uvit": (1_390_305, 3.25),
    "ukan": (6_356_689, 2.65),
    "nnunet": (105_915_365, 32.37),
    "dynunet": (33_461_829, 14.80),
    "attention_unet_monai": (31_740_337, 42.27),
    "segresnet": (6_299_073, 15.56),
    "swin_unetr": (25_139_275, 18.02),
    "smp": (24_436_369, 7.81),
    "smp UnetPlusPlus resnet18": (15_970_449, 15.97),
    "smp MAnet tu-tf_efficientnet_lite0": (8_033_159, 2.68),
    "smp DeepLabV3Plus resnet18": (12_329_297, 4.56),
    "smp FPN resnet18": (13_047_233, 4.44),
    "smp UPerNet tu-convnext_atto": (11_006_185, 13.83),
    "smp Segformer mit_b0": (3_714_401, 1.75),
    "smp DPT tu-vit_tiny_patch16_224": (34_686_529, 31.37),
}
SIZE = {"swin_unet": 224}
MISSING = {
    "smp": "segmentation_models_pytorch",
    "nnunet": "dynamic_network_architectures.architectures.unet",
    "swin_unetr": "einops",
}
PLANNED = ("medt", "nnunet", "dynunet")  # for an image size
# one logit of seeded weights and image
LOGITS = {
    "unet_classic": 0.0705394,
    "attention_unet": 0.0758825,
    "unet_plus_plus": 0.0385043,
    "unet_3_plus": -0.0246352,
    "transunet": -0.0519342,
    "medt": 0.133055,
    "swin_unet": -0.0812660,
    "unext": 0.318942,
    "cmunet": 0.0304985,
    "cmunext": -0.215700,
    "mobile_uvit": -0.204120,
    "ukan": 0.176804,
    "nnunet": -0.538802,
    "dynunet": 2.48921,
    "attention_unet_monai": -0.241625,
    "segresnet": 0.377408,
    "swin_unetr": -0.421470,
    "smp": 5.99614,
    "smp UnetPlusPlus resnet18": -1.12065,
    "smp MAnet tu-tf_efficientnet_lite0": 3.02123,
    "smp DeepLabV3Plus resnet18": -0.0196066,
    "smp FPN resnet18": 0.200833,
    "smp UPerNet tu-convnext_atto": 2.57191,
    "smp Segformer mit_b0": 0.0856836,
    "smp DPT tu-vit_tiny_patch16_224": -8.7203,
}
slow = pytest.mark.slow


def build(name: str, **settings: object) -> nn.Module:
    """The network of ``model=NAME`` for images of up to 320 px, with seeded weights.

    Args:
        name: Or ``smp ARCH ENCODER``.
        **settings: Go before those of the YAML.
    """
    name, *parts = name.split()
    config = OmegaConf.load(config_directory() / "model" / f"{name}.yaml")
    config.update(dict(zip(("arch", "encoder_name"), parts, strict=False)))
    config.in_channels = 3
    if "pretrained" in config:
        config.pretrained = False
    if "image_size" in config:
        config.image_size = 320
    torch.manual_seed(0)
    return hydra.utils.instantiate(config, **settings)


def on_meta(name: str, **settings: object) -> nn.Module:
    """The same without weights: shapes and costs at no cost."""
    if name in ("swin_unetr", "smp Segformer mit_b0"):  # read numbers while they are built
        return build(name, **settings).to("meta").eval()
    with torch.device("meta"):
        return build(name, **settings).eval()


def fill(network: nn.Module) -> None:
    """FACTS' filling: by the shape and the last part of the name of each entry alone."""
    for name, entry in network.state_dict().items():
        if not entry.is_floating_point():
            continue
        index = torch.arange(entry.numel(), dtype=torch.float64)
        wave = torch.cos(0.7 * index + 0.3 * entry.ndim).reshape(entry.shape)
        if entry.ndim > 1:
            wave *= math.sqrt(2 / (entry.numel() / len(entry)))
        elif name.rpartition(".")[2] in ("weight", "running_var"):
            wave = 1 + 0.1 * wave
        else:
            wave *= 0.1
        entry.copy_(wave)


def golden_image() -> Tensor:
    """FACTS' batch: (2, 3, 64, 64), waves, and their mirror image at half the strength."""
    y, x = torch.meshgrid(*[torch.arange(64, dtype=torch.float64)] * 2, indexing="ij")
    image = torch.stack([torch.sin(0.11 * (c + 1) * x + 0.07 * y) for c in range(3)])
    return torch.stack([image, image.flip(-1) * 0.5])


def golden_logits(name: str, dtype: torch.dtype) -> np.ndarray:
    """What a network of ours gives for FACTS' image, filled as FACTS has it: (2, 64, 64)."""
    network = build(name, num_classes=1).to(dtype).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    with torch.no_grad():
        fill(network)
        return network(golden_image().to(dtype))[:, 0].numpy()


@slow
@pytest.mark.parametrize("name", list(np.load(GOLDEN)))
def test_it_computes_what_the_public_implementation_does(name: str) -> None:
    """Breaks if any layer differs from the public benchmark's; the values are FACTS'.

    Those of ConvMixer layers amplify rounding, by BatchNorm of channels that hardly vary: here
    they run in float64. The golden values are of float32: those of cmunet lie 1.1e-3 from ours in
    float64, which lie 2.7e-3 from ours in float32.
    """
    mixes = name in ("cmunet", "cmunext")
    expected = np.load(GOLDEN)[name]
    logits = golden_logits(name, torch.float64 if mixes else torch.float32)
    largest = np.abs(expected).max()
    tolerance = 1e-3
    if name == "cmunet":
        rounding = np.abs(golden_logits(name, torch.float32) - logits).max() / largest
        tolerance = min(1e-3 + rounding, 2e-3)
        assert np.sqrt(np.square(logits - expected).mean()) / largest < 1e-4
    assert np.abs(logits - expected).max() / largest < tolerance


@slow
@pytest.mark.parametrize("name", COUNTS)
def test_size_and_cost(name: str) -> None:
    """Breaks if a layer is added, dropped, widened, or moved to another resolution."""
    settings = {"image_size": 256} if name in PLANNED else {}
    network = on_meta(name, num_classes=1, **settings)
    parameters, gmac = COUNTS[name]
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    size = SIZE.get(name, 256)
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        assert network(torch.empty(1, 3, size, size)).shape == (1, 1, size, size)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=0.01)
    yaml = config_directory() / "model" / f"{name}.yaml"
    if yaml.exists():
        assert f"{parameters / 1e6:.2f} M parameters" in yaml.read_text().splitlines()[0]


@slow
@pytest.mark.parametrize("name", COUNTS)
def test_logits_have_the_size_of_the_image(name: str) -> None:
    """Breaks if a size that does not fit the network's grid is refused, or comes back otherwise."""
    network = on_meta(name, num_classes=3, in_channels=1)
    for height, width in ((224, 320), (97, 131), (32, 33)):
        with torch.device("meta"):
            assert network(torch.empty(1, 1, height, width)).shape == (1, 3, height, width)


@slow
@pytest.mark.parametrize("name", COUNTS)
def test_every_parameter_learns_in_bf16(name: str) -> None:
    """Breaks if a part is built and not used, or overflows in half precision."""
    network = build(name, in_channels=1).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(torch.randn(2, 1, 32, 32))
    several = output if isinstance(output, list) else [output]
    assert all(torch.isfinite(logits).all() for logits in several)
    sum(logits.float().square().mean() for logits in several).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key


@slow
@pytest.mark.parametrize("name", COUNTS)
def test_a_logit(name: str) -> None:
    """Breaks if an upgrade of a library changes a network, or evaluation draws anything."""
    network = build(name).eval()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network(image)
        assert torch.equal(network(image), logits)
    assert float(logits[0, 1, 20, 30]) == pytest.approx(LOGITS[name], rel=1e-3)


@slow
@pytest.mark.parametrize("name", ["mobile_uvit", "ukan", "smp Segformer mit_b0"])
def test_what_is_drawn_resumes_to_the_same_bits(name: str, tmp_path: Path) -> None:
    """Breaks if what a network draws in training depends on more than seed and epoch."""

    def trained(folder: str, epochs: int, resume: Path | None = None) -> dict[str, Tensor]:
        module = tiny_module()
        module.model = build(name)
        fit(module, tiny_data(), tmp_path / folder, epochs=epochs, resume=resume)
        return module.state_dict()

    whole = trained("whole", 2)
    trained("halves", 1)
    resumed = trained("halves", 2, tmp_path / "halves" / "last.ckpt")
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


@slow
@pytest.mark.parametrize("name", choices_of("model"))
def test_a_run_says_how_to_build_its_network(name: str, tmp_path: Path) -> None:
    """Breaks if evaluate and predict would refuse a network, or build it with other settings."""
    config = compose(f"model={name}", "data.image_size=64", f"run_dir={tmp_path}")
    path = tmp_path / "config.yaml"
    path.write_text(written_config(config))
    recorded = read_config(path, tmp_path)
    require_admitted(recorded, "model")
    assert recorded.model == OmegaConf.to_container(config.model, resolve=True)


@slow
def test_a_trained_network_is_rebuilt_from_its_run(tmp_path: Path) -> None:
    """Breaks if a network, built anew from its run, computes something else."""
    config = compose_small(tmp_path / "run", "data.image_size=32", "trainer.max_epochs=1")
    config.model = compose("model=unext").model
    run = Run(tmp_path / "run")
    train(config, run)
    network, image = trained_network(run).eval(), torch.randn(1, 3, 32, 32)
    weights = torch.load(run.best_path, weights_only=True)["state_dict"]
    other = UNeXt().eval()
    assert not torch.allclose(network(image), other(image))
    other.load_state_dict({key.removeprefix("model."): value for key, value in weights.items()})
    assert torch.equal(network(image), other(image))


def two_steps(rank: int, names: list[str], meeting: Path) -> None:
    """Two strict steps of each network, in one of two processes."""
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    for name in names:
        network = DistributedDataParallel(build(name))
        for _ in range(2):
            network(torch.randn(2, 3, 32, 32)).square().mean().backward()


@slow
def test_strict_training_in_two_processes(tmp_path: Path, one_thread: None) -> None:
    """Breaks if a network has a parameter that a step does not use: the next one would fail."""
    start = multiprocessing.get_context("fork").Process
    names = ["unext", "medt", "mobile_uvit", "ukan"]
    both = [start(target=two_steps, args=(rank, names, tmp_path / "meeting")) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in both] == [0, 0]


@slow
@pytest.mark.parametrize("name", ["unext", "mobile_uvit", "smp"])
def test_onnx_export(name: str, tmp_path: Path) -> None:
    """Breaks if an exported network computes something else in another runtime."""
    import onnxruntime

    network = build(name).requires_grad_(False).eval()
    image = torch.randn(1, 3, 64, 96)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (image,), tmp_path / "net.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (logits,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), network(image), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("image_size", "strides"),
    [
        (256, [(1, 1)] + 6 * [(2, 2)]),
        (320, [(1, 1)] + 6 * [(2, 2)]),
        (47, [(1, 1)] + 3 * [(2, 2)]),
        ([256, 512], [(1, 1)] + 6 * [(2, 2)]),
        ([256, 1024], [(1, 1)] + 6 * [(2, 2)] + [(1, 2)]),
        ([640, 80], [(1, 1)] + 4 * [(2, 2)] + 2 * [(2, 1)]),
    ],
)
def test_nnunets_plan(image_size: int | list[int], strides: list[tuple[int, int]]) -> None:
    """Breaks if it is planned otherwise than get_pool_and_conv_props of nnunetv2 plans patches."""
    assert planned_strides(image_size) == strides


def test_nnunet_refuses_what_it_cannot_plan_for() -> None:
    """Breaks if images without two stages below the first end in an error of the library."""
    with pytest.raises(UserError, match=r"image_size=14 is too small"):
        planned_strides(14)
    assert len(planned_strides(16)) == 3


@slow
@pytest.mark.parametrize("name", ["nnunet", "dynunet"])
def test_coarse_logits_lie_over_the_image(name: str) -> None:
    """Breaks if coarse logits come in eval, at wrong sizes, or cover the padding beside the image.

    For 64 px there are five stages, hence four levels of the decoder, the deepest without logits.
    """
    network = build(name, image_size=64)
    sizes = [tuple(logits.shape[-2:]) for logits in network(torch.zeros(1, 3, 50, 80))]
    assert sizes == [(50, 80), (25, 40), (13, 20)]
    assert network.eval()(torch.zeros(1, 3, 50, 80)).shape == (1, 2, 50, 80)
    assert isinstance(build(name, image_size=16)(torch.zeros(1, 3, 16, 16)), list | Tensor)


def test_dynunet_computes_what_monai_does() -> None:
    """Breaks if the levels are joined otherwise than by MONAI's own forward."""
    network = build("dynunet", image_size=32)
    image = torch.randn(1, 3, 32, 32)
    ours, theirs = network(image), network.network(image).unbind(1)
    assert len(ours) == len(theirs) == 2
    for logits, expected in zip(ours, theirs, strict=True):
        enlarged = torch.nn.functional.interpolate(logits, (32, 32))
        assert torch.equal(enlarged, expected)
    assert torch.equal(network.eval()(image), network.network(image))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if someone without the extra sees a traceback, or is not told of it."""
    for name, package in MISSING.items():
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UserError, match=rf"{package}: pip install 'anatosegnet\[networks\]'"):
            instantiate(compose(f"model={name}"), "model")


def test_medt_names_the_sizes_it_takes() -> None:
    """Breaks if an image beyond the learned positions ends in a traceback, or a wrong patch."""
    network = MedT(image_size=[64, 96]).eval()
    assert network(torch.zeros(1, 3, 63, 95)).shape[-2:] == (63, 95)
    with pytest.raises(UserError, match=r"up to 64×96 pixels; .* model.image_size="):
        network(torch.zeros(1, 3, 96, 64))
    with pytest.raises(ValueError, match="patch_size=48"):
        MedT(patch_size=48)


def test_medts_patches() -> None:
    """Breaks if patches are cut in stripes, or put back elsewhere."""
    image = torch.randn(2, 3, 16, 32)
    patches = to_patches(image)
    assert torch.equal(patches[:2], image[..., :4, :8])
    assert torch.equal(patches[2:4], image[..., :4, 8:16])
    assert torch.equal(from_patches(patches), image)


def test_medts_patches_cover_the_image_on_demand() -> None:
    """Breaks if patch_size=null leaves a part of the image to the global branch alone."""
    assert MedT(image_size=256, patch_size=None).covered == 256
    assert MedT(image_size=[100, 130], patch_size=None).covered == 256
    assert MedT(image_size=256).covered == 128


def test_kan_basis_is_scipys() -> None:
    """Breaks if the splines are not those of the grid of five intervals over [-1, 1]."""
    x = torch.linspace(-0.99, 0.99, 50, dtype=torch.float64)
    knots = -1 + 0.4 * np.arange(-3, 9)
    expected = BSpline(knots, np.eye(8), 3)(x.numpy())
    np.testing.assert_allclose(KANLinear(1, 1).double().basis(x).numpy(), expected, atol=1e-12)


def test_shift_lets_zeros_in() -> None:
    """Breaks if pixels come in again at the other edge, or groups move the wrong way."""
    rows = torch.arange(1.0, 5).reshape(1, 1, 4, 1).expand(1, 5, 4, 3)
    moved = shift(rows, axis=-2)[0, :, :, 0]
    expected = [[3, 4, 0, 0], [2, 3, 4, 0], [1, 2, 3, 4], [0, 1, 2, 3], [0, 0, 1, 2]]
    assert moved.tolist() == expected
