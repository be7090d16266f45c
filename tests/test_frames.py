"""Frames in natural order, decoded one at a time, from folders and videos."""

import math
import re
import struct
from itertools import islice

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moving_faces import varied
from moving_faces import video as video_of
from shared_data import shared_data

from merba.errors import ClipProblem
from merba.frames import open_clip, read_image
from merba.frames.mp4 import edited_seconds
from merba.frames.names import frame_names


def box(kind, *content):
    data = b"".join(content)
    return struct.pack(">I4s", 8 + len(data), kind) + data


MEDIA = box(b"mdia", box(b"hdlr", bytes(8), b"vide"))
EDITS = box(b"edts", box(b"elst", struct.pack(">IIIiIIiI", 0, 2, 500, -1, 1 << 16, 3000, 40, 1 << 16)))
FILM = box(b"ftyp", bytes(8)) + box(b"moov", box(b"mvhd", bytes(12), struct.pack(">I", 1000)), box(b"trak", MEDIA, EDITS))
"""The header of a film of 3 s, after half a second of nothing."""
IMAGE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8), (0, 0), 2)


def numbers(clip, *between):
    return [number for number, _ in clip.frames(*between)]


@pytest.fixture
def folder(tmp_path):
    """Writes an image under each name, with the frame's place in the list as its grey level."""

    def write(*names):
        for level, name in enumerate(names):
            cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), level, np.uint8))
        return tmp_path

    return write


def named(folder, *names):
    """Numbers of frames of these names, in the names' order; empty files are enough, because only names are read."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    by_name = {name: number for number, name in frame_names(folder).items()}
    return [by_name[name] for name in names]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["img1.jpg", "img2.jpg", "img10.jpg"], [1, 2, 10]),
        (["reg_img46.jpg"], [46]),
        (["006_05562.jpg", "006_05563.jpg"], [5562, 5563]),
        (["175.jpg"], [175]),
        (["frame1_left.png", "frame2_left.png"], [1, 2]),
        (["1_cam2.png", "2_cam2.png", "10_cam2.png"], [1, 2, 10]),
        (["frame_0_0.990.png", "frame_1_0.995.png", "frame_2_1.000.png", "frame_3_1.005.png"], [0, 1, 2, 3]),
        (["20240501_120000_7.png", "20240501_120000_8.png", "20240501_120001_9.png"], [7, 8, 9]),
        (["40_t1000.png", "41_t1033.png", "42_t1066.png"], [40, 41, 42]),
        (["1_0.067.png", "2_0.1.png", "3_0.133.png"], [1, 2, 3]),
        (["img1.jpg.png", "img2.jpg.png"], [1, 2]),
    ],
)
def test_the_frame_number_is_the_one_in_which_all_names_differ(tmp_path, names, expected):
    assert named(tmp_path, *names) == expected


@pytest.mark.parametrize("stray", ["image105 (1).png", "image105 2.png", "image105-1.png", "thumbnail_256.png", "256.jpg"])
def test_an_image_that_differs_in_more_than_its_number_is_a_problem_that_names_it(tmp_path, stray):
    frames = [f"image{number}.png" for number in range(100, 121)]
    with pytest.raises(ClipProblem, match=re.escape(f"{stray} differs from image100.png in more than its number")):
        named(tmp_path, *frames, stray)


def test_numbers_that_order_the_frames_differently_are_a_problem(tmp_path):
    with pytest.raises(ClipProblem, match=r"1_3.png and 3_1.png hold several numbers, which put the frames in different orders"):
        named(tmp_path, "1_3.png", "2_2.png", "3_1.png")
    with pytest.raises(ClipProblem, match="two images of frame 1: s1_1.png and s2_1.png"):
        named(tmp_path / "takes", "s1_1.png", "s1_2.png", "s2_1.png", "s2_2.png")
    with pytest.raises(ClipProblem, match=r"0.067.png and 0.133.png hold several numbers"):
        named(tmp_path / "seconds", "0.067.png", "0.1.png", "0.133.png")


@pytest.mark.parametrize("name", [".image99.png.icloud", "image99.png.part", ".image99.PNG.Xa9Kd2", "image99.png~"])
def test_an_image_that_is_not_wholly_there_is_a_problem_that_names_it(tmp_path, name):
    with pytest.raises(ClipProblem, match=re.escape(f"{name} is an image that isn't complete yet")):
        named(tmp_path, "image100.png", "image101.png", name)


PART = st.text("ab_ .-(", max_size=3)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=8, unique=True), PART, PART, st.integers(1, 4), st.data())
@settings(max_examples=100, deadline=None)
def test_any_names_give_the_true_numbers_or_a_problem(tmp_path_factory, truth, before, after, padding, data):
    """Names from a counter, text around it, and perhaps a stray file: read right, or a problem."""
    folder = tmp_path_factory.mktemp("frames")
    names = {number: f"f{before}{number:0{padding}}{after}.png" for number in truth}
    for name in names.values():
        (folder / name).touch()
    stray = data.draw(st.sampled_from([None, "f{} (1).png", "thumb{}.jpg", "{}.png", "f{}.png.jpg"]))
    if stray and (extra := stray.format(truth[0])) not in names.values():
        (folder / extra).touch()
    try:
        numbers = frame_names(folder)
    except ClipProblem as problem:
        assert stray
        assert str(folder) in str(problem)
    else:
        assert numbers == dict(sorted(names.items()))


def test_frames_are_in_the_order_of_their_numbers_not_of_their_names(folder):
    clip = open_clip(folder("img10.png", "img9.png", "img100.png"), "frames")
    assert [(number, int(image[0, 0, 0])) for number, image in clip.frames()] == [(9, 1), (10, 0), (100, 2)]


def test_upper_case_extensions_count_and_other_files_do_not(folder, caplog):
    path = folder("a7.BMP", "a8.JPG")
    (path / "Thumbs.db").write_bytes(b"1")
    (path / "._a9.jpg").write_bytes(b"1")
    (path / "cover.jpg").write_bytes(b"1")
    assert numbers(open_clip(path, "frames")) == [7, 8]
    assert f"{path}: cover.jpg has no number, and is left out" in caplog.text
    assert f"{path}: ._a9.jpg can't be read as images" in caplog.text
    assert "Thumbs.db" not in caplog.text


def test_gaps_and_several_numbers_that_count_are_said(tmp_path, caplog):
    named(tmp_path / "whole", "f1.png", "f3.png", "f5.png")
    named(tmp_path / "one", "006_reg_img46.jpg")
    assert not caplog.text
    named(tmp_path / "gap", "f1.png", "f2.png", "f3.png", "f8.png", "f9.png")
    assert "gap: there is no image between frames 3 and 8, but most are 1 apart" in caplog.text
    assert named(tmp_path / "two", "0_5.png", "1_6.png") == [5, 6]
    assert "two: several numbers in names such as 0_5.png count the frames; it is read as frame 5" in caplog.text


def test_two_images_of_one_number_are_a_problem_that_names_both(folder):
    with pytest.raises(ClipProblem, match="frame 1: img01.png and img1.png"):
        open_clip(folder("img01.png", "img1.png"), "frames")


@pytest.mark.parametrize("kind", ["frames", "video"])
def test_an_absent_source_is_a_problem_that_names_it(tmp_path, kind):
    with pytest.raises(ClipProblem, match="absent"):
        open_clip(tmp_path / "absent", kind)


def test_an_empty_folder_is_a_problem(tmp_path):
    with pytest.raises(ClipProblem, match="no numbered image"):
        open_clip(tmp_path, "frames")


def test_an_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match="frames or video"):
        open_clip("x", "flow")


def test_a_missing_frame_is_a_problem_that_says_which_frames_there_are(folder):
    with pytest.raises(ClipProblem, match="frame 5 is missing.*2 frames from 4 to 6"):
        open_clip(folder("4.png", "6.png"), "frames").read(5)


def test_frames_between_two_numbers_include_both_and_none_means_the_end(folder):
    clip = open_clip(folder(*(f"{n}.png" for n in (3, 4, 5, 7))), "frames")
    assert numbers(clip, 4, 7) == [4, 5, 7]
    assert numbers(clip, None, 4) == [3, 4]
    assert numbers(clip) == [3, 4, 5, 7]


@pytest.mark.parametrize(("onset", "offset", "missing"), [(6, 9, 6), (4, 8, 8), (1, None, 1)])
def test_an_onset_or_offset_that_is_not_there_is_a_problem_and_not_the_next_frame(folder, onset, offset, missing):
    clip = open_clip(folder(*(f"{n}.png" for n in (3, 4, 5, 7, 9))), "frames")
    with pytest.raises(ClipProblem, match=f"frame {missing} is missing .*5 frames from 3 to 9"):
        numbers(clip, onset, offset)


def test_the_offset_is_not_asked_for_before_its_turn(folder):
    clip = open_clip(folder(*(f"{n}.png" for n in (3, 4))), "frames")
    assert [number for number, _ in islice(clip.frames(3, 99), 2)] == [3, 4]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif"])
@pytest.mark.parametrize("part", [0, 0.3, 0.7, 0.98])
def test_an_image_that_is_cut_short_is_a_problem(tmp_path, suffix, part):
    data = cv2.imencode(suffix, IMAGE)[1].tobytes()
    path = tmp_path / f"1{suffix}"
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ClipProblem, match="damaged"):
        read_image(path)


def test_only_the_frames_that_are_asked_for_are_decoded(folder):
    path = folder("1.png", "2.png")
    (path / "2.png").write_bytes(b"damaged")
    assert open_clip(path, "frames").read(1).shape == (8, 8, 3)


def test_grey_and_sixteen_bit_images_come_out_as_eight_bit_colour(tmp_path):
    grey = IMAGE[..., 0]
    cv2.imwrite(str(tmp_path / "1.png"), grey)
    cv2.imwrite(str(tmp_path / "2.png"), grey.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "3.tif"), IMAGE.astype(np.uint16) * 257)
    repeated = np.repeat(grey[..., None], 3, axis=2)
    clip = open_clip(tmp_path, "frames")
    np.testing.assert_array_equal(clip.read(1), repeated)
    np.testing.assert_array_equal(clip.read(2), repeated)
    np.testing.assert_array_equal(clip.read(3), IMAGE)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_files_of_a_camera_with_fewer_bits_are_as_bright_as_eight_bit_ones(tmp_path, caplog, bits, suffix):
    """The first frame is dark, so that it alone would be taken for fewer bits."""
    white, grey = 2**bits - 1, IMAGE[..., 0]
    for number, brightness in enumerate((0.05, 1)):
        levels = np.rint(grey * (brightness * white / grey.max())).astype(np.uint16)
        cv2.imwrite(str(tmp_path / f"{number}.{suffix}"), levels)
    clip = open_clip(tmp_path, "frames")
    for number, brightness in enumerate((0.05, 1)):
        expected = grey * (brightness * 255 / grey.max())
        assert np.abs(clip.read(number)[..., 0] - expected).max() <= 1
    said = f"{tmp_path}: 16-bit images with values up to {white} of 65535; {white} is taken as white"
    assert (said in caplog.text) == (bits < 16)


def test_the_bits_of_a_dark_clip_can_be_set(tmp_path, caplog):
    """Values of a 16-bit camera that never reach a quarter of white: they stay as dark in 8 bits, and nothing is guessed."""
    levels = IMAGE[..., 0].astype(np.uint16) * 50
    cv2.imwrite(str(tmp_path / "1.png"), levels)
    image = open_clip(tmp_path, "frames", bits=16).read(1)
    assert np.abs(image[..., 0] - levels / 257).max() <= 0.5
    assert not caplog.text


@pytest.mark.parametrize("white", [63, 255, 1000, 4095, 16383, 65535])
@pytest.mark.parametrize("comment", ["", "# a camera\n"])
def test_a_pgm_file_says_itself_what_white_is(tmp_path, white, comment):
    levels = np.array([[0, white // 4, white // 2]])
    (tmp_path / "1.pgm").write_bytes(
        f"P5\n{comment}3 1\n{white}\n".encode() + levels.astype(">u2" if white > 255 else "u1").tobytes()
    )
    (tmp_path / "2.pgm").write_text(f"P2\n{comment}3 1\n{white}\n0 {white // 4} {white // 2}\n")
    clip = open_clip(tmp_path, "frames")
    for number in (1, 2):
        assert np.abs(clip.read(number)[0, :, 0] - levels[0] * 255 / white).max() < 1


def test_floating_point_images_are_a_problem(tmp_path):
    cv2.imwrite(str(tmp_path / "1.tif"), IMAGE.astype(np.float32))
    with pytest.raises(ClipProblem, match="float32"):
        open_clip(tmp_path, "frames").read(1)


def test_an_image_of_several_pages_is_a_problem(tmp_path):
    """Such as the stack of a whole recording, of which the first page would be every frame."""
    cv2.imwritemulti(str(tmp_path / "1.tif"), [IMAGE, IMAGE // 2, IMAGE])
    with pytest.raises(ClipProblem, match="1.tif holds 3 pages"):
        open_clip(tmp_path, "frames").read(1)


def test_a_frame_of_another_size_is_a_problem(folder):
    path = folder("1.png")
    cv2.imwrite(str(path / "2.png"), IMAGE)
    clip = open_clip(path, "frames")
    clip.read(1)
    with pytest.raises(ClipProblem, match="frame 2 .* is 64×48, the others are 8×8"):
        clip.read(2)


def test_the_frame_rate_of_a_folder_is_unknown(folder):
    assert math.isnan(open_clip(folder("1.png"), "frames").fps)


@pytest.fixture
def video(tmp_path):
    """A video of 12 frames, 64×48 at 25 fps: frame n has grey level 20 n, under a white band in its upper quarter."""
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    for number in range(12):
        frame = np.full((48, 64, 3), 20 * number, np.uint8)
        frame[:12] = 255
        writer.write(frame)
    writer.release()
    return path


def shown_number(frame):
    """The number that a frame of the video shows, read where the band never is after a rotation by 90°."""
    return round(float(frame[20:30, 20:30].mean()) / 20)


def test_a_video_counts_its_frames_from_zero(video):
    clip = open_clip(video, "video")
    assert numbers(clip) == list(range(12))
    assert numbers(clip, 3, 5) == [3, 4, 5]
    assert clip.fps == 25


def test_video_frames_are_right_in_any_order(video):
    clip = open_clip(video, "video")
    assert [shown_number(clip.read(number)) for number in (5, 5, 11, 0, 3)] == [5, 5, 11, 0, 3]


def test_a_frame_past_the_end_of_a_video_is_a_problem(video):
    for read in (lambda clip: clip.read(12), lambda clip: numbers(clip, 3, 12), lambda clip: numbers(clip, 12)):
        with pytest.raises(ClipProblem, match="frame 12 is missing .*12 frames"):
            read(open_clip(video, "video"))


def test_a_frame_before_the_first_of_a_video_is_a_problem(video):
    with pytest.raises(ClipProblem, match="frame -3 is missing in .*; its first frame is 0"):
        open_clip(video, "video").read(-3)


@pytest.fixture(params=["mp4", "avi", "mkv"])
def noise(request, tmp_path):
    """A video of 100 frames that compress badly, so that bytes are spread over frames evenly; 25 fps."""
    path = tmp_path / f"noise.{request.param}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    for frame in np.random.default_rng(0).integers(0, 256, (100, 48, 64, 3), np.uint8):
        writer.write(frame)
    writer.release()
    if request.param == "mp4":
        front_loaded(path)
    return path


def front_loaded(path):
    """Move the index of an MP4 file before its frames, as cameras and web converters do: then a cut file can be read."""
    data = path.read_bytes()
    head, frames, index = data.index(b"mdat") - 4, data.index(b"mdat") + 4, data.index(b"moov") - 4
    moved = bytearray(data[index:])
    place = moved.index(b"stco") + 8
    (count,) = struct.unpack_from(">I", moved, place)
    offsets = struct.unpack_from(f">{count}I", moved, place + 4)
    struct.pack_into(f">{count}I", moved, place + 4, *(offset + len(moved) for offset in offsets))
    path.write_bytes(data[:head] + moved + data[head:index])
    assert frames < index


def test_a_whole_video_is_read_to_its_end(noise):
    assert numbers(open_clip(noise, "video")) == list(range(100))


def test_a_video_that_ends_before_its_header_says_is_a_problem_with_both_counts(noise):
    data = noise.read_bytes()
    noise.write_bytes(data[: round(0.6 * len(data))])
    with pytest.raises(ClipProblem, match=r"its header says 100 frames, (4\d|5\d|6\d) could be read"):
        numbers(open_clip(noise, "video"))
    assert numbers(open_clip(noise, "video"), 0, 30) == list(range(31)), "what is there can be used"


@pytest.mark.parametrize("noise", ["mp4", "avi"], indirect=True)
def test_a_hole_in_a_video_is_a_problem_with_both_counts(noise):
    data = bytearray(noise.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 6] = bytes(len(data) // 6)
    noise.write_bytes(data)
    with pytest.raises(ClipProblem, match=r"its header says 100 frames, \d+ could be read"):
        numbers(open_clip(noise, "video"))


def avi(path, codec="MJPG", dropped=()):
    """An AVI file of 60 frames, of which some were dropped while recording; the places of the others' chunks."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 25, (64, 48))
    for number in range(60):
        writer.write(np.full((48, 64, 3), 4 * number, np.uint8))
    writer.release()
    data = path.read_bytes()
    movi, index = data.index(b"movi"), data.rindex(b"idx1")
    entries = list(struct.iter_unpack("<4sIII", data[index + 8 :][: 16 * 60]))
    chunks = [data[movi + offset :][: 8 + size + size % 2] for _, _, offset, size in entries]
    place, frames, listed = 4, b"movi", b""
    places = []
    for number, (chunk, (name, flags, *_)) in enumerate(zip(chunks, entries, strict=True)):
        chunk = struct.pack("<4sI", name, 0) if number in dropped else chunk
        places += [] if number in dropped else [movi + place]
        listed += struct.pack("<4sIII", name, flags, place, struct.unpack_from("<I", chunk, 4)[0])
        place, frames = place + len(chunk), frames + chunk
    whole = bytearray(data[:movi] + frames + struct.pack("<4sI", b"idx1", len(listed)) + listed)
    struct.pack_into("<I", whole, movi - 4, len(frames))
    struct.pack_into("<I", whole, 4, len(whole) - 8)
    path.write_bytes(whole)
    return places


@pytest.mark.parametrize("codec", ["MJPG", "XVID"])
def test_frames_behind_a_hole_in_an_avi_file_are_a_problem_with_both_counts(tmp_path, codec):
    """It has no time stamps, and the decoder goes on behind the hole: without a word, frame 21 would be the true frame 26."""
    places = avi(tmp_path / "a.avi", codec)
    data = bytearray((tmp_path / "a.avi").read_bytes())
    data[places[21] : places[26]] = bytes(places[26] - places[21])
    (tmp_path / "a.avi").write_bytes(data)
    clip = open_clip(tmp_path / "a.avi", "video")
    for _ in range(2):
        with pytest.raises(ClipProblem, match="its header says 60 frames, 55 could be read"):
            clip.read(30)
        assert numbers(clip, 0, 20) == list(range(21)), "what is before it can be used"


def test_frames_that_were_dropped_while_recording_are_said(tmp_path, caplog):
    avi(tmp_path / "whole.avi")
    open_clip(tmp_path / "whole.avi", "video").read(40)
    assert not caplog.text
    avi(tmp_path / "a.avi", dropped=[20])
    clip = open_clip(tmp_path / "a.avi", "video")
    assert len(numbers(clip)) == 59
    assert f"{tmp_path}/a.avi: 0.08 s between frames 19 and 20, the time of 2 frames" in caplog.text
    assert clip.time(20, 25) == pytest.approx(21 / 25)


@pytest.mark.parametrize("change", [lambda data: data.replace(b"idx1", b"junk"), lambda data: data.replace(b"00dc", b"99xy")])
def test_an_avi_file_whose_index_is_of_no_use_is_read(tmp_path, change):
    avi(tmp_path / "a.avi")
    data = (tmp_path / "a.avi").read_bytes()
    index = data.rindex(b"idx1")
    (tmp_path / "a.avi").write_bytes(data[:index] + change(data[index:]))
    assert len(list(islice(open_clip(tmp_path / "a.avi", "video").frames(), 50))) == 50


@pytest.mark.parametrize("noise", ["mkv"], indirect=True)
def test_a_hole_before_the_frames_that_are_asked_for_is_said(noise, caplog):
    open_clip(noise, "video").read(80)
    assert not caplog.text
    data = bytearray(noise.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    noise.write_bytes(data)
    open_clip(noise, "video").read(60)
    assert re.search(rf"{noise}: \d\.\d+ s between frames \d+ and \d+, the time of [12]\d frames", caplog.text)


def edited(path, start, seconds):
    """Give an MP4 file's only track an edit list that shows `seconds` seconds from `start` (s) on."""
    data = path.read_bytes()
    film, track, media = (data.index(kind) - 4 for kind in (b"moov", b"trak", b"mdia"))
    (scale,) = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)
    (rate,) = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)
    entries = struct.pack(">I4sIIIiI", 28, b"elst", 0, 1, round(seconds * scale), round(start * rate), 1 << 16)
    old = data.find(b"edts")
    before = data[: old - 4] if old > 0 else data[:media]
    data = bytearray(before + struct.pack(">I4s", 36, b"edts") + entries + data[media:])
    for box in (film, track):
        struct.pack_into(">I", data, box, struct.unpack_from(">I", data, box)[0] + len(data) - path.stat().st_size)
    path.write_bytes(data)


def test_what_an_edit_list_leaves_out_is_not_missing(video):
    edited(video, start=0.16, seconds=0.24)
    assert edited_seconds(video) == pytest.approx(0.24)
    clip = open_clip(video, "video")
    assert [shown_number(image) for _, image in clip.frames()] == [4, 5, 6, 7, 8, 9]


def test_an_edit_that_shows_nothing_does_not_count(tmp_path):
    (tmp_path / "a.mp4").write_bytes(FILM)
    assert edited_seconds(tmp_path / "a.mp4") == 3


@given(st.binary(max_size=60), st.integers(0, 300))
@settings(max_examples=100, deadline=None)
def test_a_damaged_film_header_has_no_edit_list_or_a_number(tmp_path_factory, noise, place):
    path = tmp_path_factory.getbasetemp() / "header.mp4"
    data = bytearray(FILM)
    data[place : place + len(noise)] = noise
    path.write_bytes(data)
    seconds = edited_seconds(path)
    assert seconds is None or seconds > 0


def test_a_live_recording_has_no_number_of_frames(video, monkeypatch):
    class Live:
        def get(self, key):
            return -2.8e17 if key == cv2.CAP_PROP_FRAME_COUNT else 25.0

        def isOpened(self):  # noqa: N802
            return True

    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Live())
    assert open_clip(video, "video").expected == 0


@pytest.mark.parametrize("said", [1000, 25])
def test_a_time_scale_is_not_taken_for_a_frame_rate(tmp_path, monkeypatch, caplog, said):
    """Browsers write 1000 into the header of a recording, and so the number of frames is taken for that of milliseconds."""
    path = video_of(tmp_path / "a.webm", count=50, fps=25)
    decoder = cv2.VideoCapture

    class Browser:
        def __init__(self, *source):
            self.real = decoder(*source)

        def get(self, key):
            wrong = {cv2.CAP_PROP_FPS: said, cv2.CAP_PROP_FRAME_COUNT: 2 * said}
            return float(wrong[key]) if key in wrong else self.real.get(key)

        def __getattr__(self, name):
            return getattr(self.real, name)

    monkeypatch.setattr(cv2, "VideoCapture", Browser)
    clip = open_clip(path, "video")
    assert (clip.fps, clip.expected) == (pytest.approx(25), 50)
    assert len(numbers(clip)) == 50
    assert clip.time(20, 50) == pytest.approx(0.4), "twice as fast as it is stored"
    assert not caplog.text


@pytest.mark.parametrize("name", ["2024-11-14T22:57:44.mp4", "file:x.mp4", "a%03d.mp4", "-i.mp4", "zo\u00e9 $1_2.mp4"])
def test_a_video_of_any_name_is_read_from_where_it_lies(video, name, monkeypatch):
    monkeypatch.chdir(video.parent)
    video.rename(video.with_name(name))
    assert len(numbers(open_clip(name, "video"))) == 12


@pytest.mark.parametrize(("ratio", "size"), [((64, 45), (91, 48)), ((10, 11), (64, 53)), ((1, 1), (64, 48))])
@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_are_not_square_are_made_so(video, ratio, size, turned):
    """The box `pasp` says how wide and high they are, of the picture as it is stored."""
    pixels = struct.pack(">I4sII", 16, b"pasp", *ratio)
    data = bytearray(video.read_bytes())
    entry = data.index(b"mp4v", data.index(b"stsd")) - 4
    old = data.find(b"pasp")
    if old > 0:
        data[old - 4 : old + 12] = pixels
    else:
        end = entry + struct.unpack_from(">I", data, entry)[0]
        data[end:end] = pixels
        for box in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"mp4v"):
            at = entry if box == b"mp4v" else data.index(box) - 4
            struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + 16)
    if turned:
        place = data.index(b"tkhd") + 44
        data[place : place + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 48 << 16, 0, 1 << 30)
    video.write_bytes(data)
    image = open_clip(video, "video").read(3)
    assert image.shape[1::-1] == (size[::-1] if turned else size)
    assert shown_number(image) == 3


def test_a_file_that_is_no_video_is_a_problem(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"no video")
    with pytest.raises(ClipProblem, match="can't be decoded"):
        open_clip(tmp_path / "x.mp4", "video")


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0, 48, 0), 1), ((-1, 0, 0, -1, 64, 48), 2), ((0, -1, 1, 0, 0, 64), 3)])
def test_a_rotated_phone_video_comes_out_upright(video, matrix, turns):
    """The header's matrix, (x, y) → (a x + c y + u, b x + d y + v), says how the pixels are turned, clockwise, to be upright."""
    lying = open_clip(video, "video").read(3)
    data = bytearray(video.read_bytes())
    place = data.index(b"tkhd") + 44
    a, b, c, d, u, v = (65536 * value for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, u, v, 1 << 30)
    video.write_bytes(data)
    clip = open_clip(video, "video")
    np.testing.assert_array_equal(clip.read(3), np.rot90(lying, -turns))
    assert [shown_number(clip.read(number)) for number in (7, 2)] == [7, 2]


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((-1, 0, 0, 1, 64, 0), lambda lying: lying[:, ::-1]),
        ((1, 0, 0, -1, 0, 48), lambda lying: lying[::-1]),
        ((0, 1, 1, 0, 0, 0), lambda lying: lying.transpose(1, 0, 2)),
        ((0, -1, -1, 0, 48, 64), lambda lying: lying[::-1, ::-1].transpose(1, 0, 2)),
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_a_mirrored_video_comes_out_upright(tmp_path, matrix, upright, suffix):
    """As a phone's front camera, or a camera in front of a mirror, writes it; each corner has another grey level."""
    path = tmp_path / f"a.{suffix}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    corners = np.array([[0, 80], [160, 240]], np.uint8)
    writer.write(np.repeat(cv2.resize(corners, (64, 48), interpolation=cv2.INTER_NEAREST)[..., None], 3, axis=2))
    writer.release()
    lying = open_clip(path, "video").read(0)
    data = bytearray(path.read_bytes())
    a, b, c, d, u, v = (65536 * value for value in matrix)
    place = data.index(b"tkhd") + 44
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, u, v, 1 << 30)
    path.write_bytes(data)
    np.testing.assert_array_equal(open_clip(path, "video").read(0), upright(lying))


@pytest.mark.parametrize(("orientation", "turns"), [(6, 1), (3, 2), (8, 3)])
def test_a_rotated_phone_photograph_comes_out_upright(tmp_path, orientation, turns):
    from PIL import Image

    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(IMAGE[..., ::-1]).save(tmp_path / "1.jpg", quality=100, subsampling=0, exif=exif)
    read = open_clip(tmp_path, "frames").read(1)
    assert np.abs(read.astype(int) - np.rot90(IMAGE, -turns)).mean() < 2


def test_frames_of_a_variable_frame_rate_are_right(video):
    # Six frames at the old rate, six at five times it.
    varied(video, (6, 1), (6, 1 / 5))
    clip = open_clip(video, "video")
    assert clip.fps > 30
    assert [(number, shown_number(image)) for number, image in clip.frames()] == [(n, n) for n in range(12)]
    assert [shown_number(clip.read(number)) for number in (9, 4, 11)] == [9, 4, 11]
    assert clip.time(11, clip.fps) == pytest.approx(6 / 25 + 5 / 125, abs=0.001)
    assert clip.time(6, clip.fps / 2) == pytest.approx(2 * 6 / 25, abs=0.001)


def test_a_real_video_has_its_472_frames():
    clip = open_clip(shared_data("clips/WolfgangLanger_Pexels.mp4"), "video")
    assert clip.fps == pytest.approx(24000 / 1001)
    assert len(numbers(clip)) == 472
    assert clip.read(471).shape == (360, 640, 3)
