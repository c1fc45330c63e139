"""Row 14: links, paths, lists and names of a stranger's data reach nothing outside the roots that the user named."""

import csv
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from segexp.cli import main
from segexp.config.flags import ALLOWED_ROOTS, split_flags
from segexp.data.cases import Listed, Manifest, Report, confined
from segexp.data.kidney_layouts import Layout
from segexp.data.labelmap import LabelMap
from segexp.data.regions import PrecomputedRegions
from segexp.data.roots import Roots, check_template, read_json, read_table, unfit
from segexp.errors import ConfigError, DataError
from segexp.files import plain_cell
from segexp.predictions.images import find_images, name_images
from tests.data.heads import Folder, bulk_id
from tests.faults.images import packed, raw, written


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOWED_ROOTS, raising=False)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The real paths of all files that are read while the test runs."""
    seen: list[str] = []
    for name in ("read_bytes", "read_text", "open"):
        real = getattr(Path, name)

        def spy(self: Path, *args: Any, real: Any = real, **more: Any) -> Any:
            seen.append(os.path.realpath(self))
            return real(self, *args, **more)

        monkeypatch.setattr(Path, name, spy)
    return seen


def outside(seen: list[str], *roots: Path) -> list[str]:
    """Return what was read, of the test's own folders and of the system's, outside the roots."""
    own = (roots[0].resolve().parent, Path("/etc"), Path("/root"), Path("/home"))
    mine = [path for path in seen if any(map(Path(path).is_relative_to, own)) and "site-packages" not in path]
    return [path for path in mine if not path.endswith((".py", ".pyc"))
            and not any(Path(path).is_relative_to(root.resolve()) for root in roots)]


def linked(base: Path) -> tuple[Folder, Path, Path]:
    """A data set of three cases: one image and one label map are links into a folder outside, one a link inside."""
    folder, archive = Folder(base / "set"), base / "archive"
    for number in range(3):
        folder.add(bulk_id(number), seed=number)
    image, labels = folder.path(bulk_id(0), "image"), folder.path(bulk_id(1), "malp_em")
    for path in (image, labels):
        archive.mkdir(exist_ok=True)
        path.rename(archive / path.name)
        path.symlink_to(archive / path.name)
    inner = folder.path(bulk_id(2), "image")
    inner.rename(inner.with_name("real.nii.gz"))
    inner.symlink_to("real.nii.gz")
    return folder, archive, image


def test_links_out_of_the_roots_are_refused_and_not_read(tmp_path: Path, opened: list[str]) -> None:
    folder, archive, image = linked(tmp_path)
    manifest = folder.module().check()
    assert {report.listed.id for report in manifest.reports if report.case is None} == {bulk_id(0), bulk_id(1)}
    reason = next(report.reason for report in manifest.reports if report.listed.id == bulk_id(0))
    assert f"{image} leads to {archive.resolve() / image.name}, outside" in reason
    assert f"--allow-root {archive.resolve()}" in reason
    assert opened and outside(opened, tmp_path / "set") == []


def test_the_command_line_may_allow_them(tmp_path: Path, opened: list[str]) -> None:
    folder, archive, _ = linked(tmp_path)
    before = dict(os.environ)
    try:
        assert split_flags(["--allow-root", str(archive), "seed=1"]).roots == (str(archive),)
        split_flags([f"--allow-root={tmp_path / 'other'}"])
        assert os.environ[ALLOWED_ROOTS].split(os.pathsep) == [str(archive.resolve()), str(tmp_path / "other")]
        assert folder.module().check().usable == 3
        assert outside(opened, tmp_path / "set", archive) == []
    finally:
        os.environ.clear()
        os.environ.update(before)
    with pytest.raises(ConfigError, match="--allow-root needs a value: --allow-root FOLDER"):
        split_flags(["--allow-root"])


def test_no_configuration_may(tmp_path: Path) -> None:
    words = ["check", "data=ukbiobank", f"data.root={tmp_path}", f"paths.outputs={tmp_path / 'out'}"]
    assert main([*words, "+data.roots=[/]"]) == 2
    assert main([*words, "+roots=[/]", "data.layout=flat"]) == 3  # read by nobody: there is no case in the folder


def test_whole_folders_that_are_links_are_links_too(tmp_path: Path) -> None:
    folder, archive = Folder(tmp_path / "set"), tmp_path / "archive"
    for number in range(2):
        folder.add(bulk_id(number), seed=number)
    case = folder.root / bulk_id(0)
    case.rename(tmp_path / "archive")
    case.symlink_to(archive)
    manifest = folder.module().check()
    assert [report.status for report in manifest.reports] == ["rejected", "ok"]
    # A root that is a link itself is what the user named.
    (tmp_path / "link").symlink_to(folder.root)
    assert folder.module(root=str(tmp_path / "link")).check().usable == 1


TEMPLATES = ("{root}/../../etc/{case}", "/etc/passwd", "{root}/{case}/../../../../etc/passwd")
ATTRIBUTES = ("{root.__class__}", "{case.__class__.__mro__}", "{root!r}", "{case:>1000000000}", "{0}", "{secret}",
              "{case[0]}", "{", "{}")


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_that_lead_out_read_nothing(template: str, tmp_path: Path, opened: list[str]) -> None:
    folder = Folder(tmp_path / "set")
    folder.add(bulk_id(0), seed=0)
    settings = folder.settings()
    layouts = json.loads(json.dumps(settings["layouts"]))
    layouts["bulk"]["image"] = template
    manifest = folder.module(layouts=layouts).check()
    assert manifest.usable == 0 and "outside" in manifest.reports[0].reason
    assert outside(opened, tmp_path / "set") == []


@pytest.mark.parametrize("template", ATTRIBUTES)
def test_templates_hold_plain_fields_only(template: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.layouts\.bulk\.image"):
        check_template("data.layouts.bulk.image", template, ("root", "case"))


def test_patterns_and_names_of_layouts_stay_below_the_root(tmp_path: Path) -> None:
    from segexp.data import CAIN
    from tests.data.test_cain import CAIN_DEFAULTS

    settings = {key: value for key, value in CAIN_DEFAULTS.items() if key not in ("_target_", "intensity")}
    settings |= {"root": tmp_path, "targets": ["wmh"], "cache": tmp_path / "cache"}
    for key, value in (("image_glob", "../*/FLAIR.nii.gz"), ("image_glob", "/etc/*"), ("mask_glob", "../{sub}/x.nii"),
                       ("participants", "../secret.tsv"), ("participants", "/etc/passwd")):
        with pytest.raises(ConfigError, match=rf"data\.{key}.*leads out"):
            CAIN(**{**settings, key: value})
    plain = {"folders": ["cases"], "case": "*", "image": "image.nii.gz", "label": "label.nii.gz"}
    for key, value in (("folders", ["/etc"]), ("folders", ["../.."]), ("case", "../*"), ("image", "/etc/passwd"),
                       ("label", "../x"), ("information", "../kits.json"), ("description", "/etc/hosts"),
                       ("case_information", "a/../../b")):
        with pytest.raises(ConfigError, match="leads out"):
            Layout("native", tmp_path, **{**plain, key: value})


def test_a_file_of_regions_may_be_named_by_its_whole_path(tmp_path: Path) -> None:
    file = tmp_path / "elsewhere" / "rois.json"
    file.parent.mkdir()
    file.write_text('{"case": []}')
    assert PrecomputedRegions(file).digest(tmp_path / "root").startswith("precomputed ")


@pytest.mark.parametrize("how", ["up", "link"])
def test_files_of_regions_and_splits_stay_below_the_root(how: str, tmp_path: Path, opened: list[str]) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"case": []}')
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.json").symlink_to(secret)
    opened.clear()
    file = {"up": "../secret.json", "link": "link.json"}[how]
    with pytest.raises(DataError, match=r"leads to .*secret\.json, outside"):
        PrecomputedRegions(file).digest(root)
    with pytest.raises(DataError, match="outside"):
        Roots(root).check(root / file)
    assert outside(opened, root) == []


def test_predictions_do_not_follow_links_out_of_their_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = packed(raw())
    written(tmp_path / "in" / "sub-01.nii.gz", content)
    written(tmp_path / "secret" / "x.nii.gz", content)
    (tmp_path / "in" / "sub-02.nii.gz").symlink_to(tmp_path / "secret" / "x.nii.gz")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "secret")
    (tmp_path / "in" / "sub-03.nii.gz").symlink_to("sub-01.nii.gz")
    found = name_images(find_images(tmp_path / "in", "*.nii*", tmp_path / "out"), tmp_path / "in")
    assert [(one.name, bool(one.problem)) for one in found] == [("sub-01", False), ("sub-02", True), ("sub-03", False)]
    monkeypatch.setenv(ALLOWED_ROOTS, str(tmp_path / "secret"))
    found = name_images(find_images(tmp_path / "in", "*.nii*", tmp_path / "out"), tmp_path / "in")
    assert not any(one.problem for one in found)


NAMES = ("=cmd|' /C calc'!A0", "+1", "-x", "@SUM(A1)", "a\nb", "a\rb", "a\tb", "a\0b", "a\x1b[2J", "\udcff", " a", "a ",
         "x" * 300)


@pytest.mark.parametrize("name", NAMES)
def test_names_that_no_table_can_hold_are_problems(name: str, tmp_path: Path) -> None:
    assert unfit(name)
    listed = confined(Listed(name, name, tmp_path / "a.nii.gz", {}), Roots(tmp_path))
    assert listed.problem and all(letter.isprintable() for letter in listed.problem)


def test_ordinary_names_are_none() -> None:
    assert not any(map(unfit, ("1000001_20252_2_0", "sub-01", "case_00001", "Müller", "a b", "患者1", "🧠", "x" * 255)))


def test_tables_for_people_hold_no_formula(tmp_path: Path) -> None:
    for text in ("=1+1", "+cmd", "-cmd|x", "@x", "\t=1", " =1", "|x", "%x"):
        assert str(plain_cell(text)).startswith("'")
    for value in ("-1.5", "+3e4", "1", "sub-01", "a=b", "", -3, None):
        assert plain_cell(value) == value
    listed = Listed("1", "1", Path("=cmd|x/image.nii.gz"), {}, "=HYPERLINK(\"http://x\")")
    Manifest((Report(listed, (listed.problem,)),), ()).write(tmp_path / "m.csv")
    with (tmp_path / "m.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not any(cell.startswith(("=", "+", "@")) for cell in cells) and "'=HYPERLINK(\"http://x\")" in cells


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "=x", "x" * 200, "a\nb"])
def test_targets_name_files_and_structures_cells(name: str) -> None:
    with pytest.raises(ConfigError):
        LabelMap.from_mapping(name, {0: "background", 1: "a"})
    for structure in ("=cmd", "a\nb", "@x"):
        with pytest.raises(ConfigError, match="formula"):
            LabelMap.from_mapping("t", {0: "background", 1: structure})


def test_tables_and_lists_have_limits(tmp_path: Path) -> None:
    wide = written(tmp_path / "wide.tsv", b"participant_id" + b"\tx" * 1_000_000 + b"\n1\n")
    deep = written(tmp_path / "deep.json", b"[" * 200_000)
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(10**9)
    bad = written(tmp_path / "bad.tsv", b"a\tb\n1\t2\t3\n")
    nul = written(tmp_path / "nul.tsv", b"a\tb\n\0\t\"2\n")
    latin = written(tmp_path / "latin.tsv", "a\tb\nü\t1\n".encode("latin-1"))
    field = written(tmp_path / "field.tsv", b"a\tb\n" + b"x" * 500_000 + b"\t1\n")
    started = time.monotonic()
    for path, reason in ((wide, "1000001 columns"), (bad, "more cells than the 2 columns"), (nul, "cannot be read"),
                         (latin, "cannot be read"), (field, "cannot be read"), (tmp_path, "cannot be read"),
                         (tmp_path / "absent", "cannot be read")):
        with pytest.raises(DataError, match=reason):
            read_table(path, "\t")
    for path, reason in ((deep, "cannot be read"), (large, "such a file has at most"), (latin, "cannot be read")):
        with pytest.raises(DataError, match=reason):
            read_json(path)
    assert time.monotonic() - started < 10
