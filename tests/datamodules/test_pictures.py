"""Picture files of every kind, read as people see them."""

import numpy as np
import pytest
from PIL import Image

from datamodules import pictures
from datamodules.pictures import as_rgb, opened, read_rgb, survey, upright, upright_size

RAMP = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint16) * 4  # 63 values, 0 to 248


def save(path, image, **options):
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


@pytest.mark.parametrize("bits, factor", [(8, 1), (12, 16), (14, 64), (16, 256), (16, 257)])
def test_deep_grey_keeps_every_value_at_the_bits_of_its_data_set(tmp_path, bits, factor):
    deep = RAMP * factor
    files = [
        save(tmp_path / "a.png", deep),
        save(tmp_path / "little.tif", deep),
        save(tmp_path / "big.tiff", Image.frombytes("I;16B", (32, 32), deep.astype(">u2").tobytes())),
        save(tmp_path / "thirty_two.tif", deep.astype(np.int32)),
    ]
    assert survey(files) == bits
    for file in files:
        np.testing.assert_array_equal(np.asarray(read_rgb(file, bits)), np.repeat(RAMP[..., None], 3, 2))


def test_the_scale_is_that_of_the_whole_data_set(tmp_path, monkeypatch):
    files = [save(tmp_path / f"{k}.png", RAMP // 4 * factor) for k, factor in enumerate((1, 1, 1, 64))]
    assert survey(files) == 12  # 62 * 64
    assert np.asarray(read_rgb(files[0], 12)).max() == 62 >> 4  # a dark picture stays dark
    with pytest.raises(ValueError, match=r"3\.png cannot be read as an image \(it has a value of 3968, which 8 bits"):
        read_rgb(files[3], 8)
    monkeypatch.setattr(pictures, "OPENED", 2)  # where deep pictures are among the few that are opened, all are
    assert survey(files) == 12
    assert survey([save(tmp_path / "plain.png", RAMP.astype(np.uint8))]) == 16


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "PA"])
@pytest.mark.parametrize("drawn, ground", [(0, 255), (100, 255), (255, 0)])
def test_what_is_drawn_in_the_alpha_channel_is_seen(tmp_path, kind, drawn, ground):
    alpha = np.zeros((8, 8), dtype=np.uint8)
    alpha[2:6, 2:6] = 255
    grey = Image.merge("LA", [Image.new("L", (8, 8), drawn), Image.fromarray(alpha)])
    path = tmp_path / ("a.tif" if kind == "PA" else "a.png")
    if kind == "P":
        picture = Image.fromarray((alpha > 0).astype(np.uint8))
        picture.putpalette([drawn] * 6)
        save(path, picture, transparency=b"\x00\xff")
    else:
        save(path, grey.convert("RGBA").convert(kind) if kind != "LA" else grey)
    with opened(path) as picture:
        assert picture.mode == kind
    seen = np.asarray(read_rgb(path))
    np.testing.assert_array_equal(seen, np.where(alpha > 0, drawn, ground)[..., None].repeat(3, 2))


def test_an_alpha_channel_that_hides_all_or_nothing_changes_nothing(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for alpha in (0, 255):
        picture = Image.fromarray(colours)
        picture.putalpha(alpha)
        np.testing.assert_array_equal(np.asarray(read_rgb(save(tmp_path / "a.png", picture))), colours)


def test_other_modes_become_rgb(tmp_path):
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    assert read_rgb(save(tmp_path / "cmyk.jpg", red.convert("CMYK"), quality=100)).getpixel((0, 0)) >= (250, 0, 0)
    assert read_rgb(save(tmp_path / "cmyk.tif", red.convert("CMYK"))).getpixel((0, 0)) == (255, 0, 0)
    assert read_rgb(save(tmp_path / "palette.png", red.quantize(4))).getpixel((0, 0)) == (255, 0, 0)
    assert read_rgb(save(tmp_path / "bit.png", Image.new("1", (8, 8), 1))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_pictures_are_turned_as_their_exif_data_say(tmp_path, suffix):
    raw = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
    seen = {  # what each orientation means, as CIPA DC-008 has it
        1: raw, 2: raw[:, ::-1], 3: raw[::-1, ::-1], 4: raw[::-1], 5: raw.swapaxes(0, 1),
        6: raw[::-1].swapaxes(0, 1), 7: raw[::-1, ::-1].swapaxes(0, 1), 8: raw[:, ::-1].swapaxes(0, 1),
    }  # fmt: skip
    for orientation, expected in seen.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = save(tmp_path / f"{orientation}.{suffix}", raw, exif=exif, **_lossless(suffix))
        with opened(path) as picture:
            assert upright_size(picture) == expected.shape[1::-1]
            turned = as_rgb(picture)
        assert np.abs(np.asarray(turned).astype(int) - expected).max() <= (4 if suffix == "jpg" else 0)
        with opened(path) as picture:
            np.testing.assert_array_equal(np.asarray(upright(picture).convert("RGB")), np.asarray(turned))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_deep_tiff_files_are_turned_too(tmp_path, compression):
    raw = np.arange(4 * 6, dtype=np.uint16).reshape(4, 6) * 2730
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.tif", raw, exif=exif, compression=compression)
    with opened(path) as picture:
        np.testing.assert_array_equal(np.asarray(upright(picture)), raw[::-1].T)
    np.testing.assert_array_equal(np.asarray(read_rgb(path))[..., 0], raw[::-1].T >> 8)


def _lossless(suffix):
    return {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})


def test_files_that_are_no_pictures_are_named_before_training(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    whole = save(tmp_path / "whole.jpg", noise)
    damaged = {
        "empty.jpg": b"",
        "text.jpg": b"no picture",
        "cut.jpg": whole.read_bytes()[:-200],
        "cut.png": save(tmp_path / "whole.png", RAMP).read_bytes()[:-100],
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} cannot be read as an image") as caught:
            survey([whole, tmp_path / name])
        assert "\n" not in str(caught.value)
    signed = save(tmp_path / "signed.tif", RAMP.astype(np.int32) - 1000)
    with pytest.raises(ValueError, match=r"signed\.tif .*values run from -1000 to -752, 0 to 65535 are read"):
        survey([whole, signed])
    broken = save(tmp_path / "float.tif", RAMP.astype(np.float32))
    with pytest.raises(ValueError, match=r"float\.tif .*floating-point numbers; save it with 8 or 16 bits"):
        survey([whole, broken])
    monkeypatch.setattr(pictures, "_DECODED", 0)  # as of a large data set, of which only the headers are read
    assert survey([whole, tmp_path / "cut.jpg"]) == 16
    with pytest.raises(ValueError, match=r"text\.jpg"):
        survey([whole, tmp_path / "text.jpg"])
