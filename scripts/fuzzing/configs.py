"""Runs of a stranger: configs that execute, write elsewhere, or are not configs at all."""

import io
import json
import os
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from fuzzing.ground import Sandbox, train_arguments
from fuzzing.trials import Edit, Trial

Node = dict[str, Any]


def verbs(ground: Path) -> dict[str, list[str]]:
    """Everything that opens a run."""
    tiny = train_arguments(ground)
    return {
        "predict": ["predict", "run=../run", "input=../data/images", "output=out"],
        "evaluate": ["evaluate", "run=../run", "overwrite=true"],
        "evaluate data=": ["evaluate", "run=../run", "data=phantom", "data.count=4"],
        "resume": ["train", "resume=../run", "trainer.max_epochs=3"],
        "from_run": ["train", "from_run=../run", "run_dir=new"],
        "from_run seed=": ["train", *tiny[:2], "from_run=../run", "run_dir=new", "seed=1"],
        "init_from": ["train", *tiny, "data.count=16", "init_from=../run", "run_dir=new"],
        "compare": ["compare", "runs=[../run,../other]", "out=comparison"],
        "compare anew": ["compare", "runs=[../run,../other]", "out=comparison", "at=model"],
        "runs": ["runs", "dir=.."],
    }


TAGGED = "!!python/object/apply:os.mkdir ['{}']\n"


class Evil:
    """Touches the canary when it is unpickled."""

    def __init__(self, canary: object) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def plant(box: Sandbox) -> None:
    """Files that execute when a careless reader opens them, in the run's folder."""
    touch = f"import os\nos.makedirs({str(box.canary)!r}, exist_ok=True)\n"
    for name in ("hubconf.py", "evil_module.py", "sitecustomize.py", "conftest.py"):
        (box.run / name).write_text(f"{touch}def evil(*a, **k):\n    {touch.splitlines()[1]}\n")
    cached = box.run / "hub" / "Project-MONAI_perceptual-models_main"  # as torch.hub names it
    for folder in (box.run / "hydra_plugins", cached):
        folder.mkdir(parents=True, exist_ok=True)
    (cached / "hubconf.py").write_text(touch)
    (box.run / "hydra_plugins" / "evil.py").write_text(touch)
    pickled = pickle.dumps(Evil(box.canary))
    for name in ("evil.pkl", "evil.joblib", "pytorch_model.bin"):
        (box.run / name).write_bytes(pickled)
    torch.save({"state_dict": Evil(box.canary)}, box.run / "evil.pt")
    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil(box.canary)], dtype=object), allow_pickle=True)
    (box.run / "evil.npy").write_bytes(buffer.getvalue())
    (box.run / "evil.yaml").write_text(TAGGED.format(box.canary))
    group = box.run / "configs" / "model"
    group.mkdir(parents=True, exist_ok=True)
    (group / "evil.yaml").write_text(f"_target_: os.mkdir\npath: {box.canary}\n")
    (box.run / "config.json").write_text('{"architecture": "resnet18", "num_classes": 2}')


def payloads(run: object, canary: object, victim: object) -> dict[str, Node]:
    """Calls that execute the payload or touch the victim, were they made; by their targets."""
    run, canary, victim = str(run), str(canary), str(victim)
    code = f"__import__('os').mkdir({canary!r})"
    nodes: list[Node] = [
        {"_target_": "torch.hub.load", "repo_or_dir": run, "source": "local", "model": "evil"},
        {"_target_": "torch.load", "f": f"{run}/evil.pt", "weights_only": False},
        {"_target_": "torch.jit.load", "f": f"{run}/evil.pt"},
        {"_target_": "torch.package.PackageImporter", "file_or_buffer": f"{run}/evil.pt"},
        {"_target_": "torch.serialization.load", "f": f"{run}/evil.pt", "weights_only": False},
        {"_target_": "torch.utils.model_zoo.load_url", "url": f"file://{run}/evil.pt"},
        {"_target_": "pandas.read_pickle", "filepath_or_buffer": f"{run}/evil.pkl"},
        {"_target_": "numpy.load", "file": f"{run}/evil.npy", "allow_pickle": True},
        {"_target_": "joblib.load", "filename": f"{run}/evil.joblib"},
        {"_target_": "pickle.loads", "_args_": [pickle.dumps(Evil(canary), 0).decode()]},
        {"_target_": "yaml.unsafe_load", "stream": TAGGED.format(canary)},
        {"_target_": "builtins.exec", "_args_": [code]},
        {"_target_": "builtins.eval", "_args_": [code]},
        {"_target_": "builtins.__import__", "name": "evil_module"},
        {"_target_": "builtins.open", "file": f"{victim}/new", "mode": "w"},
        {"_target_": "os.system", "command": f"mkdir {canary}"},
        {"_target_": "os.mkdir", "path": canary},
        {"_target_": "os.remove", "path": f"{victim}/keep.txt"},
        {"_target_": "posix.mkdir", "_args_": [canary]},
        {"_target_": "subprocess.Popen", "args": ["mkdir", canary]},
        {"_target_": "subprocess.run", "args": ["mkdir", canary]},
        {"_target_": "subprocess.check_output", "args": ["mkdir", canary]},
        {"_target_": "pathlib.Path.write_text", "_args_": [f"{victim}/keep.txt", "owned"]},
        {"_target_": "pathlib.Path.mkdir", "self": canary},
        {"_target_": "shutil.copyfile", "src": f"{run}/evil.pkl", "dst": f"{victim}/keep.txt"},
        {"_target_": "shutil.rmtree", "path": victim},
        {"_target_": "importlib.import_module", "name": "evil_module"},
        {"_target_": "runpy.run_path", "path_name": f"{run}/evil_module.py"},
        {"_target_": "code.interact"},
        {"_target_": "ctypes.CDLL", "name": f"{run}/evil.pt"},
        {"_target_": "socket.create_connection", "address": ["127.0.0.1", 9]},
        {"_target_": "urllib.request.urlopen", "url": "http://127.0.0.1:9"},
        {"_target_": "webbrowser.open", "url": "http://127.0.0.1:9"},
        {"_target_": "hydra.utils.instantiate",
         "config": {"_target_": "os.mkdir", "path": canary}},
        {"_target_": "hydra.utils.call", "config": {"_target_": "os.mkdir", "path": canary}},
        {"_target_": "hydra.utils.get_method", "path": "evil_module.evil"},
        {"_target_": "hydra.utils.get_class", "path": "evil_module.evil"},
        {"_target_": "hydra._internal.utils._locate", "path": "evil_module.evil"},
        {"_target_": "omegaconf.OmegaConf.load", "file_": f"{run}/evil.yaml"},
        {"_target_": "functools.partial", "_args_": [
            {"_target_": "hydra.utils.get_method", "path": "os.mkdir"}, canary]},
        {"_target_": "operator.attrgetter", "_args_": ["__class__.__base__.__subclasses__"]},
        {"_target_": "operator.methodcaller", "_args_": ["mkdir", canary]},
        {"_target_": "timm.create_model", "model_name": f"local-dir:{run}", "pretrained": True},
        {"_target_": "timm.models.load_state_dict", "checkpoint_path": f"{run}/evil.pt",
         "weights_only": False},
        {"_target_": "huggingface_hub.hf_hub_download", "repo_id": "a/b", "filename": "c"},
        {"_target_": "lightning.pytorch.cli.LightningCLI"},
        {"_target_": "lightning.pytorch.core.saving.load_hparams_from_yaml",
         "config_yaml": f"{run}/evil.yaml"},
        {"_target_": "lightning.LightningModule.load_from_checkpoint",
         "checkpoint_path": f"{run}/evil.pt", "weights_only": False},
        {"_target_": "lightning.fabric.utilities.cloud_io._load",
         "path_or_url": f"{run}/evil.pt", "weights_only": False},
        {"_target_": "lightning.pytorch.trainer.trainer.os.mkdir", "_args_": [canary]},
        {"_target_": "albumentations.load", "filepath_or_buffer": f"{run}/evil.yaml",
         "data_format": "yaml"},
        {"_target_": "albumentations.from_dict", "transform_dict": {
            "transform": {"__class_fullname__": "evil_module.evil"}}},
        {"_target_": "albumentations.core.serialization.instantiate_nonserializable"},
        {"_target_": "monai.bundle.run", "config_file": f"{run}/evil.yaml"},
        {"_target_": "monai.losses.dice.torch.load", "f": f"{run}/evil.pt",
         "weights_only": False},
        {"_target_": "wandb.restore", "name": "x"},
        {"_target_": "anatosegnet.run.shutil.rmtree", "path": victim},
        {"_target_": "anatosegnet.run.subprocess.run", "args": ["mkdir", canary]},
        {"_target_": "anatosegnet.run.write_json", "path": f"{victim}/keep.txt", "content": {}},
        {"_target_": "anatosegnet.config.objects.instantiate", "config": {
            "x": {"_target_": "os.mkdir", "path": canary}}, "key": "x"},
        {"_target_": "anatosegnet.tuning.trial.Training", "command": ["mkdir", canary],
         "metrics": "m", "log": f"{victim}/keep.txt"},
        {"_target_": "anatosegnet.__main__.main"},
        {"_target_": "evil_module.evil"},
        {"_target_": "torch.nn.Module.__init__.__globals__", "x": 1},
        {"_target_": "torch.nn.Module.register_module.__globals__.get", "_args_": ["os"]},
        {"_target_": "torch.nn.utils.parametrize.torch.load", "f": f"{run}/evil.pt",
         "weights_only": False},
        {"_target_": "torch.nn.modules.container.torch.hub.load", "repo_or_dir": run,
         "source": "local", "model": "evil"},
    ]  # fmt: skip
    return {node["_target_"]: node for node in nodes}


PLACES: dict[str, Callable[[Node, Node], None]] = {
    "model": lambda c, n: c.update(model=n),
    "model.x": lambda c, n: c["model"].update(x=n),
    "model.bias": lambda c, n: c["model"].update(bias=n),
    "model._args_": lambda c, n: c.update(model={"_target_": "torch.nn.Sequential", "_args_": [n]}),
    "loss": lambda c, n: c.update(loss=n),
    "loss.x": lambda c, n: c["loss"].update(x=[{"y": [n]}]),
    "optimizer": lambda c, n: c.update(optimizer={**n, "_partial_": True}),
    "optimizer.lr": lambda c, n: c["optimizer"].update(lr=n),
    "scheduler": lambda c, n: c.update(scheduler={**n, "_partial_": True}),
    "augmentation": lambda c, n: c.update(augmentation=n),
    "augmentation.transforms": lambda c, n: c["augmentation"]["transforms"].append(n),
    "augmentation.OneOf": lambda c, n: c["augmentation"]["transforms"].append(
        {"_target_": "albumentations.OneOf", "transforms": [n], "p": 1.0}
    ),
    "augmentation.Lambda": lambda c, n: c["augmentation"]["transforms"].append(
        {"_target_": "albumentations.Lambda", "image": {**n, "_partial_": True}, "p": 1.0}
    ),
    "callbacks.new": lambda c, n: c["callbacks"].update(new=n),
    "callbacks.best.x": lambda c, n: c["callbacks"]["best"].update(monitor=n),
    "callbacks.Lambda": lambda c, n: c["callbacks"].update(
        new={
            "_target_": "lightning.pytorch.callbacks.LambdaCallback",
            "on_fit_start": {**n, "_partial_": True},
        }
    ),
    "logger": lambda c, n: c.update(logger={"new": n}),
    "logger.x": lambda c, n: c.update(
        logger={"csv": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": n}}
    ),
    "trainer": lambda c, n: c.update(trainer=n),
    "trainer.plugins": lambda c, n: c["trainer"].update(plugins=[n]),
    "trainer.profiler": lambda c, n: c["trainer"].update(profiler=n),
    "trainer.strategy": lambda c, n: c["trainer"].update(strategy=n),
    "trainer.callbacks": lambda c, n: c["trainer"].update(callbacks=[n]),
    "split": lambda c, n: c.update(split=n),
    "split.seed": lambda c, n: c["split"].update(seed=n),
    "data": lambda c, n: c.update(data=n),
    "data.root": lambda c, n: c["data"].update(root=n),
    "data.x": lambda c, n: c["data"].update(x={"y": n}),
    "data.augmentation": lambda c, n: c["data"].update(augmentation=n, split=n),
    "name": lambda c, n: c.update(name=n),
    "paths": lambda c, n: c["paths"].update(runs_dir=n),
    "new group": lambda c, n: c.update(search={"sampler": n, "pruner": n}),
}


def change(edit: Callable[[Node, Sandbox], None]) -> Edit:
    """An edit of the recorded config."""

    def prepare(box: Sandbox) -> None:
        path = box.run / "config.yaml"
        config = yaml.safe_load(path.read_text())
        edit(config, box)
        path.write_text(yaml.safe_dump(config, allow_unicode=True))

    return prepare


def put(place: str, name: str) -> Edit:
    """A payload in a place."""

    def prepare(box: Sandbox) -> None:
        plant(box)
        node = payloads(box.run, box.canary, box.victim)[name]
        change(lambda config, _: PLACES[place](config, node))(box)

    return prepare


def set_value(key: str, value: Any) -> Edit:
    """A value in the recorded config; in texts, OUT is the victim's folder and RUN the run's."""

    def filled(node: Any, box: Sandbox) -> Any:
        if isinstance(node, dict):
            return {k: filled(v, box) for k, v in node.items()}
        if isinstance(node, list):
            return [filled(v, box) for v in node]
        if isinstance(node, str):
            return node.replace("OUT", str(box.victim)).replace("RUN", str(box.run))
        return node

    def edit(config: Node, box: Sandbox) -> None:
        node = config
        *parents, last = key.split("/")
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}
            node = node[parent]
        node[last] = filled(value, box)

    def prepare(box: Sandbox) -> None:
        plant(box)
        change(edit)(box)

    return prepare


def target(_target_: str, **arguments: Any) -> Node:
    """A node that builds something."""
    return {"_target_": _target_, **arguments}


LIGHTNING = "lightning.pytorch"
AUGMENT = "augmentation/transforms"
# what points outside, or asks admitted classes for more than building
OUTWARD: dict[str, Any] = {
    "name": ["../../victim", "OUT", "..", ".", "", "a/b", "\x1b[2J", "a[/x]", "x" * 300],
    "run_dir": ["OUT", "../victim", "/", ""],
    "resume": ["OUT"], "from_run": ["OUT"], "init_from": ["OUT", "RUN", "/dev/zero"],
    "paths/runs_dir": ["OUT"], "paths/cache_dir": ["OUT"], "paths/data_dir": ["OUT", "/proc"],
    "data/name": ["../../victim", "../../../victim", "OUT", "..", "a/../../../victim", "/", "",
                  "a[/x]", "\x1b]0;x\x07"],
    "data/cache_dir": ["OUT", "../victim", "~/x"],
    "data/cache_limit_gb": [0, 1e-9, -1],
    "data/root": ["/dev", "/proc/self/fd", "OUT", "~"],
    "data/_target_": ["anatosegnet.data.SegmentationDataModule"],
    "callbacks/best/dirpath": ["OUT", "../../victim", "~", "/proc/self/cwd/../victim"],
    "callbacks/best/filename": ["../../../victim/best", "OUT/best", "/x"],
    "callbacks/last/dirpath": ["OUT", "file://OUT", "memory://x", "s3://bucket/x", "file:OUT"],
    "callbacks/history/path": ["OUT/keep.txt", "../../victim/keep.txt"],
    "callbacks/panels/directory": ["OUT", "../../victim/panels"],
    "trainer/default_root_dir": ["OUT", "../victim", "file://OUT", "file:OUT"],
    "trainer/logger": [True, target(f"{LIGHTNING}.loggers.CSVLogger", save_dir="OUT")],
    "trainer/profiler": ["simple", "advanced", "pytorch", "xla",
                         target(f"{LIGHTNING}.profilers.SimpleProfiler", dirpath="OUT",
                                filename="keep")],
    "trainer/plugins": [["slurm"], [target(f"{LIGHTNING}.plugins.io.TorchCheckpointIO")],
                        [target(f"{LIGHTNING}.plugins.environments.SLURMEnvironment")]],
    "trainer/strategy": ["deepspeed", "nothing", target(f"{LIGHTNING}.strategies.DDPStrategy")],
    "trainer/barebones": [True], "trainer/fast_dev_run": [True], "trainer/detect_anomaly": [True],
    "trainer/model_registry": ["a:b"], "trainer/benchmark": [True],
    "trainer/reload_dataloaders_every_n_epochs": [1],
    "callbacks/new": [
        target(f"{LIGHTNING}.serve.ServableModuleValidator", server="fastapi"),
        target(f"{LIGHTNING}.cli.SaveConfigCallback", parser=None, config=None),
        target(f"{LIGHTNING}.callbacks.ModelCheckpoint", dirpath="OUT", filename="keep"),
        target(f"{LIGHTNING}.callbacks.ModelCheckpoint", _args_=["OUT"]),
        target(f"{LIGHTNING}.callbacks.OnExceptionCheckpoint", dirpath="OUT"),
        target(f"{LIGHTNING}.callbacks.DeviceStatsMonitor", cpu_stats=True),
        target(f"{LIGHTNING}.callbacks.Timer", duration="00:00:00:01"),
        target(f"{LIGHTNING}.callbacks.StochasticWeightAveraging", swa_lrs=0.1),
        target(f"{LIGHTNING}.callbacks.LambdaCallback", on_fit_start="os.system"),
        target(f"{LIGHTNING}.callbacks.WeightAveraging"),
        target(f"{LIGHTNING}.callbacks.ThroughputMonitor", batch_size_fn="x"),
        target(f"{LIGHTNING}.callbacks.prediction_writer.BasePredictionWriter"),
        target("anatosegnet.training.callbacks.History", path="OUT/keep.txt"),
        target("anatosegnet.training.callbacks.History", _args_=["OUT/keep.txt"]),
        target("anatosegnet.training.callbacks.History", _args_=["keep.txt"]),
        target("anatosegnet.training.panels.ValidationPanels", _args_=["pictures"]),
        target(f"{LIGHTNING}.callbacks.ModelCheckpoint", _args_=["checkpoints"]),
        target(f"{LIGHTNING}.callbacks.ModelCheckpoint", _args_=["file:OUT"]),
        target("anatosegnet.training.panels.ValidationPanels", directory="OUT"),
        target("anatosegnet.training.panels.ValidationPanels", _args_=["OUT"]),
    ],
    "logger/new": [
        target(f"{LIGHTNING}.loggers.CSVLogger", save_dir="OUT"),
        target(f"{LIGHTNING}.loggers.CSVLogger", _args_=["OUT"]),
        target(f"{LIGHTNING}.loggers.CSVLogger", _args_=["logs"]),
        target(f"{LIGHTNING}.loggers.CSVLogger", save_dir="x", name="../../../victim"),
        target(f"{LIGHTNING}.loggers.CSVLogger", save_dir="x", name="y", version="../../../victim"),
        target(f"{LIGHTNING}.loggers.CSVLogger", save_dir="x", prefix="OUT"),
        target(f"{LIGHTNING}.loggers.TensorBoardLogger", save_dir="OUT"),
        target(f"{LIGHTNING}.loggers.TensorBoardLogger", save_dir="x", sub_dir="OUT"),
        target(f"{LIGHTNING}.loggers.TensorBoardLogger", save_dir="x", log_dir="OUT"),
        target(f"{LIGHTNING}.loggers.TensorBoardLogger", save_dir="gs://x/y"),
        target(f"{LIGHTNING}.loggers.WandbLogger", save_dir="OUT", offline=True),
        target(f"{LIGHTNING}.loggers.WandbLogger", dir="OUT", offline=True),
        target(f"{LIGHTNING}.loggers.WandbLogger", project="theirs", entity="theirs",
               settings={"base_url": "http://127.0.0.1:9"}),
        target(f"{LIGHTNING}.loggers.WandbLogger", config="OUT/keep.txt", mode="offline",
               settings={"wandb_dir": "OUT"}),
        target(f"{LIGHTNING}.loggers.MLFlowLogger", tracking_uri="file:OUT"),
        target(f"{LIGHTNING}.loggers.CometLogger", api_key="x"),
        target(f"{LIGHTNING}.loggers.NeptuneLogger", api_key="x"),
        target(f"{LIGHTNING}.loggers.LitLogger", root_dir="OUT"),
    ],
    "model": [
        target("anatosegnet.models.AnatoSegNet", encoder="local-dir:RUN", pretrained=True),
        target("anatosegnet.models.AnatoSegNet", encoder="hf-hub:a/b", pretrained=True),
        target("anatosegnet.models.AnatoSegNet", encoder="resnet18", pretrained=True,
               encoder_weights="RUN/evil.pt"),
        target("anatosegnet.models.AnatoSegNet", encoder="resnet18", pretrained=True,
               encoder_weights="/dev/zero"),
        target("anatosegnet.models.AnatoSegNet", encoder="resnet18", pretrained=False),
        target("anatosegnet.models.encoder.Encoder", name="resnet18", weights="RUN/evil.pt"),
        target("anatosegnet.models.encoder.Encoder", name="local-dir:RUN"),
        target("anatosegnet.models.SMP", encoder_name="tu-local-dir:RUN", pretrained=True),
        target("anatosegnet.models.SMP", encoder_name="tu-resnet18", pretrained=True,
               encoder_weights="RUN/evil.pt"),
        target("anatosegnet.models.SMP", arch="__init__", pretrained=False),
        target("segmentation_models_pytorch.from_pretrained",
               pretrained_model_name_or_path="RUN"),
        target("torch.nn.Identity"), target("torch.nn.Module"), target("torch.nn.ReLU"),
        target("torch.nn.Linear", in_features=10**6, out_features=10**6),
        target("torch.nn.Conv2d", in_channels=3, out_channels=10**9, kernel_size=1),
        target("torch.nn.Conv2d", in_channels=3, out_channels=1, kernel_size=1),
        target("torch.nn.Conv2d", in_channels=3, out_channels=2, kernel_size=1, device="meta"),
        target("torch.nn.Conv2d", in_channels=3, out_channels=2, kernel_size=1, device="cuda"),
        target("torch.nn.DataParallel", module=target("torch.nn.Identity")),
        target("torch.nn.parallel.DistributedDataParallel", module=target("torch.nn.Identity")),
        target("torch.nn.LazyConv2d", out_channels=2, kernel_size=1),
        target("torch.nn.Sequential"), target("torch.nn.ModuleList"),
        {"_target_": "torch.nn.Conv2d", "_partial_": True},
        {"_target_": "torch.nn.Conv2d", "_convert_": "bad", "in_channels": 3},
        {"_target_": "torch.nn.Conv2d", "_recursive_": False, "in_channels": 3},
        {"_target_": "torch.nn.Conv2d", "_args_": 3},
        {"_target_": "torch.nn.Sequential", "_args_": [target("torch.nn.Softplus", beta=0)] * 50},
        {"_target_": None}, {"_target_": 3}, {"_target_": ["torch.nn.ReLU"]}, {"_target_": ""},
        {"_target_": "torch.nn.ReLU\n"}, {"_target_": "torch.nn"},
        {"_target_": "\uff54orch.nn.ReLU"},
        {"_target_": "torch.nn.ReLU", "_target": "os.system"}, {"_target_": {"a": "b"}},
    ],
    AUGMENT: [
        [target("albumentations.Lambda", image="os.system")],
        [target("albumentations.HistogramMatching", reference_images=["/dev/zero"],
                metadata_key="x")],
        [target("albumentations.FDA", reference_images=["OUT/keep.txt"])],
        [target("albumentations.TextImage", font_path="OUT/keep.txt")],
        [target("albumentations.TemplateTransform", templates=["x"])],
        [target("albumentations.Normalize")], [target("albumentations.ToTensorV2")],
        [target("albumentations.PixelDropout", dropout_prob=2)], [None], [3], ["x"],
        [target("albumentations.RandomCrop", height=10**6, width=10**6)],
        [target("albumentations.ReplayCompose", transforms=[], save_key="x")],
        [target("albumentations.Resize", height=10**6, width=10**6)],
    ],
    "loss": [target("monai.losses.PerceptualLoss", spatial_dims=3, is_fake_3d=False,
                    network_type="medicalnet_resnet10_23datasets", cache_dir="RUN/hub"),
             target("monai.losses.perceptual.RadImageNetPerceptualSimilarity",
                    cache_dir="RUN/hub"),
             target("torch.nn.Identity"), target("monai.losses.MaskedLoss", loss="os.system"),
             target("monai.losses.DiceLoss", other_act="os.system"), None, 3, []],
    "optimizer": [target("torch.optim.SGD", params="x"), target("torch.optim.Optimizer"),
                  target("torch.nn.ReLU"), None, "adam"],
    "scheduler": [target("torch.optim.lr_scheduler.LambdaLR", lr_lambda="os.system"),
                  target("torch.optim.lr_scheduler.SequentialLR"), 3],
    "split": [
        target("anatosegnet.data.split.FilesSplit", train="/dev/zero", test="/dev/zero"),
        target("anatosegnet.data.split.FilesSplit", train="OUT/keep.txt", test="OUT/keep.txt"),
        target("anatosegnet.data.split.benchmark_split", directory="OUT", fold=1),
        target("anatosegnet.data.split.KFoldSplit", folds=10**9),
        target("anatosegnet.data.split.Split"), target("anatosegnet.data.split.some"),
        target("anatosegnet.data.recorded_split.RecordedSplit", path="OUT/keep.txt"), None, 3,
    ],
    "trust": [["os", "subprocess"], "os", ["builtins"]], "recorded": [["os"], "os", None],
    "hydra": [{"run": {"dir": "OUT"}}, {"searchpath": ["file://RUN"]}],
    "compile": [True], "deterministic": [True, "x"], "seed": [-1, 2**70, "x", None],
    "new": [{"a": {"_target_": "os.mkdir", "path": "OUT/x"}}],
    "callbacks": [None, [], 3, {"best": None}, {"best": 3}, {"a.b": {}}, {"": {}}],
    "trainer": [None, [], 3, {}],
    "data": [None, [], 3, {}, "x"], "paths": [None, [], 3], "logger": [[], 3, "x"],
}  # fmt: skip

RESOLVERS = (
    "${oc.env:ANATO_SECRET}", "${oc.env:ANATO_SECRET,x}", "${oc.decode:'${oc.env:ANATO_SECRET}'}",
    "${oc.select:name}", "${oc.dict.values:paths}", "${now:%Y}", "${hydra:runtime.cwd}",
    "${data.name}", "${.name}", "a${oc.env:ANATO_SECRET}b", r"\${oc.env:ANATO_SECRET}",
    "${run_dir}/${oc.env:ANATO_SECRET}", "${oc.env:${oc.env:ANATO_SECRET}}", "${", "${}", "$${x}",
)  # fmt: skip
RESOLVED = ("name", "data/name", "callbacks/best/filename", "model/x", "trainer/precision")

TEXTS: dict[str, str] = {
    "alias bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "CONFIG",
    "merge key": "base: &base {a: 1}\nmore: {<<: *base}\nCONFIG",
    "recursive alias": "a: &a [*a]\nCONFIG",
    "anchor": "a: &a 1\nCONFIG",
    "deep list": "a: " + "[" * 10_000 + "]" * 10_000 + "\nCONFIG",
    "deep mapping": "a: " + "{a: " * 5_000 + "1" + "}" * 5_000 + "\nCONFIG",
    "deep indentation": "".join(" " * i + f"a{i}:\n" for i in range(300)) + "CONFIG",
    "apply tag": "a: !!python/object/apply:os.mkdir [CANARY]\nCONFIG",
    "new tag": "a: !!python/object/new:os.system [mkdir CANARY]\nCONFIG",
    "module tag": "a: !!python/module:evil_module\nCONFIG",
    "name tag": "a: !!python/name:os.system\nCONFIG",
    "own tag": "a: !evil x\nCONFIG",
    "tag directive": "%TAG ! tag:yaml.org,2002:python/\n---\na: !object/apply:os.mkdir [CANARY]\n",
    "several documents": "CONFIG\n---\nCONFIG",
    "key twice": "CONFIG\nname: a\nname: b\n",
    "number as key": "1: 2\nCONFIG",
    "null as key": "null: 2\n~: 3\nCONFIG",
    "list as key": "? [a, b]\n: 1\nCONFIG",
    "date": "a: 2020-01-01\nCONFIG",
    "binary": "a: !!binary aGVsbG8=\nCONFIG",
    "set": "a: !!set {x, y}\nCONFIG",
    "not a number": "a: .nan\nb: .inf\nCONFIG",
    "long number": "a: " + "9" * 100_000 + "\nCONFIG",
    "missing value": "a: ???\nCONFIG",
    "long text": "a: " + "x" * 3_000_000 + "\nCONFIG",
    "many keys": "".join(f"k{i}: {i}\n" for i in range(20_000)) + "CONFIG",
    "NUL": "a: \0\nCONFIG",
    "surrogate": 'a: "\\ud800"\nCONFIG',
    "unicode escape": 'a: "\\x1b[2J\\u202e"\nCONFIG',
    "only a list": "- 1\n",
    "only a text": "hello\n",
    "only a number": "3\n",
    "empty": "",
    "tabs": "\ta: 1\n",
    "half a config": "HALF",
}


def overrides(run: object, canary: object, out: object) -> dict[str, Any]:
    """Command lines that a stranger's ``summary.json`` records."""
    return {
        "hydra.run.dir": [f"hydra.run.dir={out}"],
        "hydra.output_subdir": [f"hydra.output_subdir={out}/x"],
        "hydra.searchpath": [f"hydra.searchpath=[file://{run}/configs]", "model=evil"],
        "hydra.searchpath pkg": ["hydra.searchpath=[pkg://evil_module]"],
        "hydra.callbacks": ["+hydra.callbacks.x._target_=os.mkdir",
                            f"+hydra.callbacks.x.path={canary}"],
        "hydra.launcher": ["hydra.launcher._target_=os.mkdir"],
        "hydra/launcher": ["hydra/launcher=joblib"],
        "hydra.job_logging": ["hydra/job_logging=default", f"hydra.job.name={out}/x"],
        "hydra.job.env_set": ["+hydra.job.env_set.PATH=/evil"],
        "target": ["model._target_=os.mkdir", f"+model.path={canary}"],
        "new target": [f"+callbacks.x={{_target_: os.mkdir, path: {canary}}}"],
        "group elsewhere": [f"model=../../../../../../../..{run}/configs/model/evil"],
        "absolute group": [f"model={run}/configs/model/evil"],
        "package": [f"+model@callbacks.x=/{run}/configs/model/evil"],
        "resolver": ["name=${oc.env:ANATO_SECRET}"],
        "nested resolver": ["+x.y=['${oc.env:ANATO_SECRET}']"],
        "name": ["name=../../victim"],
        "run_dir": [f"run_dir={out}"],
        "runs_dir": [f"paths.runs_dir={out}"],
        "cache_dir": [f"data.cache_dir={out}"],
        "paths.cache_dir": [f"paths.cache_dir={out}"],
        "dirpath": [f"callbacks.best.dirpath={out}"],
        "history": [f"callbacks.history.path={out}/keep.txt"],
        "root dir": [f"trainer.default_root_dir={out}"],
        "logger": ["logger=tensorboard", f"logger.tensorboard.save_dir={out}"],
        "wandb": ["logger=wandb", "logger.wandb.project=theirs"],
        "trust": ["trust=[os]", "model._target_=os.mkdir", f"+model.path={canary}"],
        "experiment": ["experiment=../../evil"],
        "option": ["--config-dir", f"{run}/configs"],
        "multirun": ["-m", "seed=1,2"],
        "sweep": ["seed=1,2,3"],
        "nonsense": ["=", "", "~", "+", "@", "a=[", "x" * 10_000],
        "not texts": [1, None, ["a"], {"b": 1}],
        "dictionary": {"model": "evil"},
        "text": "model=evil",
        "init_from": ["init_from=/dev/zero"],
        "files": ["split=files", "split.train=/dev/zero", "split.test=/dev/zero"],
    }  # fmt: skip


def recorded_overrides(name: str) -> Edit:
    """A summary with a hostile command line, added to the true one and in its place."""

    def prepare(box: Sandbox) -> None:
        plant(box)
        path = box.run / "summary.json"
        summary = json.loads(path.read_text())
        given = overrides(box.run, box.canary, box.victim)[name]
        if isinstance(given, list) and "nonsense" not in name:
            given = [*summary["overrides"], *given]
        summary["overrides"] = given
        path.write_text(json.dumps(summary))

    return prepare


def text(name: str) -> Edit:
    """Another text in the place of the config, or around it."""

    def prepare(box: Sandbox) -> None:
        plant(box)
        path = box.run / "config.yaml"
        config = path.read_text()
        hostile = TEXTS[name].replace("CONFIG", config).replace("CANARY", str(box.canary))
        path.write_text(hostile.replace("HALF", config[: len(config) // 2]))

    return prepare


# links that lie in a run's folder and lead out of it: what they lead to stays as it is
LINKS = {
    "config.yaml": "keep.txt", "summary.json": "keep.txt", "split.csv": "keep.txt",
    "metrics.csv": "keep.txt", "duplicates.csv": "keep.txt", "curves.png": "keep.txt",
    "checkpoints": "sub", "checkpoints/best.ckpt": "keep.txt", "checkpoints/last.ckpt": "keep.txt",
    "checkpoints/previous.ckpt": "keep.txt", ".lock": "keep.txt", "panels": "sub",
    "evaluation": "sub", "evaluation/folder": "sub", "evaluation/folder/overlays": "sub",
    "evaluation/folder/scores.csv": "keep.txt", "evaluation/folder/report.html": "keep.txt",
    ".x.tmp": "keep.txt", ".dir.tmp": "sub", "evaluation/phantom": "sub", "tensorboard": "sub",
}  # fmt: skip


def link(name: str, nowhere: bool) -> Edit:
    """A link out of the run, to what is there or to what could be made there."""

    def prepare(box: Sandbox) -> None:
        path = box.run / name
        if path.is_dir() and not path.is_symlink():
            path.rename(box.run / f"{path.name}.before")
        path.unlink(missing_ok=True)
        path.symlink_to(box.victim / ("new" if nowhere else LINKS[name]))

    return prepare


def hostile(generator: random.Random) -> Iterator[tuple[str, Edit]]:
    """All hostile runs, each with a name."""
    names = sorted(payloads("", "", ""))
    places = sorted(PLACES)
    for name in names:
        for place in ["model", *generator.sample(places, 3)]:
            yield f"{name} in {place}", put(place, name)
    for place in places:
        for name in generator.sample(names, 3):
            yield f"{name} in {place}", put(place, name)
    for key, values in OUTWARD.items():
        for value in values:
            yield f"{key}={json.dumps(value)[:120]}", set_value(key, value)
    for value in RESOLVERS:
        for key in generator.sample(RESOLVED, 2):
            yield f"{key}={value}", set_value(key, value)
    for name in TEXTS:
        yield name, text(name)
    for name in overrides("", "", ""):
        yield f"overrides: {name}", recorded_overrides(name)
    for name in LINKS:
        yield f"{name} -> elsewhere", link(name, nowhere=False)
        yield f"{name} -> nothing", link(name, nowhere=True)


def trials(ground: Path, seed: int) -> list[Trial]:
    """Hostile runs, each opened by every verb that may meet it: each by one, then by another."""
    generator = random.Random(seed)
    found = []
    for name, prepare in hostile(generator):
        chosen = [
            (verb, arguments)
            for verb, arguments in verbs(ground).items()
            if verb.startswith("from_run") or not name.startswith("overrides:")
        ]
        generator.shuffle(chosen)
        for turn, (verb, arguments) in enumerate(chosen):
            found.append((turn, generator.random(), Trial(f"{name}: {verb}", arguments, prepare)))
    return [trial for _, _, trial in sorted(found, key=lambda item: item[:2])]
