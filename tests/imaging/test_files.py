"""`cascade.imaging.files`: what is found in a folder, in which order, and what is passed over."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cascade.errors import UsageError
from cascade.imaging.files import FindOptions, find_photos, printable, readable
from cascade.imaging.recognition import looks_like_photo

JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 40


@pytest.fixture
def tree(tmp_path):
    """b.jpg, a.JPG, a folder z/ before which everything else is listed, and things that are no photos."""
    root = tmp_path / "tree"
    (root / "m").mkdir(parents=True)
    for name in ("b.jpg", "a.JPG", "m/c.png", "m/photo-without-ending", "z.heic"):
        (root / name).write_bytes(JPEG)
    (root / "m" / "text").write_bytes(b"hello")
    (root / "readme.txt").write_bytes(b"")
    (root / ".hidden.jpg").write_bytes(JPEG)
    (root / ".cache").mkdir()
    (root / ".cache" / "thumbnail.jpg").write_bytes(JPEG)
    return root


def names(roots, options=None, base=None):
    found = find_photos([str(root) for root in roots], options)
    return [os.path.relpath(one.path, base or roots[0]) for one in found]


def test_photos_in_order_and_the_rest_counted(tree):
    options = FindOptions()
    assert names([tree], options) == ["a.JPG", "b.jpg", "z.heic", "m/c.png", "m/photo-without-ending"]
    assert options.left_out == {"not photos": 2, "hidden": 2}


def test_hidden_names_on_request(tree):
    found = names([tree], FindOptions(hidden=True))
    assert ".hidden.jpg" in found
    assert ".cache/thumbnail.jpg" in found


def test_paths_keep_the_user_s_spelling(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert [one.path for one in find_photos(["./m/", "b.jpg"])] == [
        "b.jpg",
        "./m/c.png",
        "./m/photo-without-ending",
    ]


def test_size_and_time_are_those_of_the_file(tree):
    os.utime(tree / "b.jpg", ns=(5, 1_234_567_890_123_456_789))
    (found,) = find_photos([str(tree / "b.jpg")])
    assert (found.size, found.mtime_ns, found.error) == (len(JPEG), 1_234_567_890_123_456_789, None)


def test_a_named_file_is_found_whatever_it_is_called(tree):
    assert names([tree / "readme.txt"], base=tree) == ["readme.txt"]
    assert names([tree / ".hidden.jpg"], base=tree) == [".hidden.jpg"]


def test_what_is_reached_twice_is_found_once(tree):
    found = names([tree / "m" / "c.png", tree / "m", tree, tree, tree / "m" / "c.png"], base=tree)
    assert sorted(found) == ["a.JPG", "b.jpg", "m/c.png", "m/photo-without-ending", "z.heic"]


def test_a_path_that_does_not_exist_is_refused_at_once(tree):
    with pytest.raises(UsageError, match=r"nope\.jpg: no such file or folder"):
        find_photos([str(tree), str(tree / "nope.jpg")])


def test_links_stay_inside_unless_asked(tree, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "o.jpg").write_bytes(JPEG)
    (tree / "link-out.jpg").symlink_to(outside / "o.jpg")
    (tree / "link-in.jpg").symlink_to(tree / "b.jpg")
    (tree / "folder-out").symlink_to(outside)
    # a folder whose name begins like that of the tree is not inside of it
    shutil.copytree(outside, tmp_path / "tree-too")
    (tree / "link-beside.jpg").symlink_to(tmp_path / "tree-too" / "o.jpg")
    options = FindOptions()
    found = names([tree], options)
    assert [name for name in found if "link" in name or "out" in name] == [
        "link-in.jpg",
        "m/photo-without-ending",
    ]
    assert options.left_out["links"] == 3
    followed = names([tree], FindOptions(follow_links=True))
    assert {"link-out.jpg", "link-beside.jpg", "folder-out/o.jpg"} <= set(followed)


def test_circles_of_links_end(tree):
    (tree / "m" / "up").symlink_to(tree)
    (tree / "self.jpg").symlink_to(tree / "self.jpg")
    found = names([tree], FindOptions(follow_links=True))
    assert found.count("m/c.png") == 1
    assert not [name for name in found if name.startswith("m/up")]
    assert "self.jpg" in found  # a row will say that it cannot be read


def test_a_dangling_link_is_found_so_that_a_row_says_so(tree):
    (tree / "gone.jpg").symlink_to(tree / "deleted.jpg")
    found = {one.path: one for one in find_photos([str(tree)])}
    assert found[str(tree / "gone.jpg")].size == -1


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may enter every folder")
def test_a_folder_that_may_not_be_entered_is_a_row(tree):
    (tree / "m").chmod(0)
    try:
        found = list(find_photos([str(tree)]))
    finally:
        (tree / "m").chmod(0o755)
    assert [(Path(f.path).name, f.error.code) for f in found if f.error] == [("m", "not_permitted")]


def test_a_folder_that_cannot_be_read_is_a_row(tree, monkeypatch):
    real = os.scandir

    def refuse(path):
        if path.endswith("m"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = list(find_photos([str(tree)]))
    assert [(Path(f.path).name, f.error.code) for f in found if f.error] == [("m", "not_permitted")]
    assert len(found) == 4


def test_names_that_are_no_text(tmp_path):
    odd = [b"line\nbreak.jpg", b"not-\xff-utf8.jpg", "Grüße 東京.jpg".encode()]
    for name in odd:
        (tmp_path / os.fsdecode(name)).write_bytes(JPEG)
    found = [os.fsencode(Path(one.path).name) for one in find_photos([str(tmp_path)])]
    assert sorted(found) == sorted(odd)


def test_very_deep_folders(tmp_path):
    depth = 1100  # deeper than Python may recurse; made and removed by programs that can
    script = (
        "import os, sys\nos.chdir(sys.argv[1])\n"
        f"for _ in range({depth}):\n    os.mkdir('d'); os.chdir('d')\n"
        "open('x.jpg', 'wb').write(b'\\xff\\xd8\\xff')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    try:
        found = list(find_photos([str(tmp_path)]))
        assert len(found) == 1
        assert found[0].path.count("/d") == depth
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (JPEG, True),
        (b"\x89PNG\r\n\x1a\n", True),
        (b"GIF89a....", True),
        (b"RIFF\x10\0\0\0WEBPVP8 ", True),
        (b"RIFF\x10\0\0\0WAVEfmt ", False),
        (b"II*\0\x08\0\0\0", True),
        (b"\0\0\0\x1cftypavif", True),
        (b"\0\0\0\x1cftypheic", True),
        (b"\0\0\0\x1cftypisom", False),
        (b"\0\0\0\x18ftypcrx ", True),
        (b"FUJIFILMCCD-RAW 0201", True),
        (b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", True),
        (b"BMW is a car, not a bitmap", False),
        (b"", False),
    ],
)
def test_recognised_by_content(tmp_path, head, expected):
    path = tmp_path / "file"
    path.write_bytes(head)
    assert looks_like_photo(str(path)) is expected


def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert not looks_like_photo(str(tmp_path / "pipe"))  # opening it would wait for ever


def test_texts_for_people():
    assert readable("a\udcffb\n") == "a\\xffb\n"
    assert printable("a\udcffb\n\x1b[31m") == "a\\xffb\\x0a\\x1b[31m"
    assert printable("plain Grüße 東京.jpg") == "plain Grüße 東京.jpg"
    assert printable("\u202egpj.exe") == "\\u202egpj.exe"
