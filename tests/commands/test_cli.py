"""The command `merba`: what it prints and how it ends."""

import json
import re
import shlex
import subprocess
import sys

import pytest
import yaml
from moving_faces import video
from releases import write_release
from workflow_runs import ROOT

from merba.cli import COMMANDS, command_parser, main


@pytest.fixture
def casme2(tmp_path):
    """A configuration of six clips in the layout of CASME II."""
    config = {
        "data": "3db",
        "datasets": {"casme2": {"adapter": "casme2", "root": str(write_release("casme2", tmp_path / "casme2"))}},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_model_prints_table_1_of_the_paper(capsys):
    assert main(["model", "merba_base"]) == 0
    lines = capsys.readouterr().out.splitlines()
    total = lines[-1].split()
    assert total[0] == "total"
    assert 92e6 < int(total[-3].replace(",", "")) < 96e6
    assert 13 < float(total[-2]) < 17
    attention = next(line for line in lines if "stage 4: self-attention" in line)
    assert "1024×7×7" in attention


def test_model_gives_programs_the_same_numbers(capsys):
    assert main(["model", "ststnet", "--classes", "3", "--json"]) == 0
    *blocks, total = json.loads(capsys.readouterr().out)
    assert total["block"] == "total"
    assert total["parameters"] == sum(block["parameters"] for block in blocks)


def test_doctor_gives_programs_its_findings(capsys):
    status = main(["doctor", "--json"])
    findings = json.loads(capsys.readouterr().out)
    assert {"part", "works", "detail", "needed"} == set(findings[0])
    assert status == any(one["needed"] and not one["works"] for one in findings)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_example_in_the_help_is_a_command(command):
    program, *words = shlex.split(command.EXAMPLE.split(" && ")[0].split(" >> ")[0].split(" (")[0])
    assert program == "merba"
    assert command_parser().parse_args(words).run == command.run


@pytest.mark.parametrize("arguments", [[], *([command.__name__.rpartition(".")[2]] for command in COMMANDS)])
def test_every_help_has_an_example_and_the_exit_statuses(capsys, arguments):
    with pytest.raises(SystemExit):
        main([*arguments, "--help"])
    text = capsys.readouterr().out
    assert re.search(r"examples?:\s+merba \w+", text)
    assert "exit status: 0 success; 1 " in text


@pytest.mark.parametrize(
    ("typed", "completed"),
    [(["sc"], ["score"]), (["score", "--j"], ["--json"]), (["completion", "z"], ["zsh"]), (["score", "predictions"], [])],
)
def test_bash_completes_what_was_begun(capsys, typed, completed):
    main(["completion", "bash"])
    words = " ".join(map(shlex.quote, ["merba", *typed]))
    ask = f'COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _shtab_merba; echo "${{COMPREPLY[@]}}"'
    run = subprocess.run(["bash", "-c", capsys.readouterr().out + ask], capture_output=True, text=True, check=True)
    assert run.stdout.split() == completed


def test_an_unknown_model_is_an_error_that_names_the_known_ones(capsys):
    assert main(["model", "merba_huge"]) == 1
    output = capsys.readouterr()
    assert "merba: unknown model 'merba_huge'; known: merba_base" in output.err
    assert output.out == ""


def test_wrong_usage_ends_with_2():
    with pytest.raises(SystemExit) as caught:
        main(["no-such-command"])
    assert caught.value.code == 2


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-c", "import sys; from merba.cli import main; sys.exit(main(['completion', 'bash']))"]
    merba = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    merba.stdout.close()  # as `merba completion | head` does, early
    assert merba.wait() == 0
    assert merba.stderr.read() == b""


def test_an_interrupted_command_says_so(capsys, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("merba.commands.doctor.examine", interrupt)
    assert main(["doctor"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("fps", ["0", "-5", "nan", "inf", "many"])
def test_a_frame_rate_is_above_0(capsys, fps):
    with pytest.raises(SystemExit) as end:
        command_parser().parse_args(["predict", "clip.mp4", "--checkpoint", "m", "--fps", fps])
    assert end.value.code == 2
    assert "--fps" in capsys.readouterr().err


def test_an_output_that_can_not_be_is_refused_before_the_work(capsys, tmp_path):
    (tmp_path / "file").touch()
    assert main(["predict", "clip.mp4", "--checkpoint", "m", "--out", str(tmp_path / "file")]) == 1
    assert "file is not a folder" in capsys.readouterr().err
    assert main(["export", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert "is a folder; name the file to write" in capsys.readouterr().err


def test_unlock_wants_a_folder_that_is_there(capsys, tmp_path):
    assert main(["unlock", str(tmp_path / "absent")]) == 1
    assert "absent is not a folder" in capsys.readouterr().err


def test_small_models_are_counted_in_millions(capsys):
    assert main(["model", "ststnet"]) == 0
    out = capsys.readouterr().out
    assert "<NA>" not in out and "–" in out
    assert 0 < float(out.split()[-2]) < 10 and out.split()[-1] == "M"


def test_what_the_system_refuses_is_said_without_a_stack(capsys, tmp_path):
    assert main(["flow", "a" * 5000, "--out", str(tmp_path / "flow")]) == 1
    assert "File name too long" in capsys.readouterr().err


def test_opencvs_own_warnings_are_not_printed(tmp_path):
    (tmp_path / "notes.txt").write_text("no video")
    program = "import sys; from merba.cli import main; main(sys.argv[1:])"
    words = ["flow", str(tmp_path / "notes.txt"), "--out", str(tmp_path / "flow")]
    run = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, cwd=ROOT)
    assert "can't be decoded" in run.stderr and "WARN" not in run.stderr


def test_score_warns_of_names_that_differ_in_case_zeros_or_spaces_alone(capsys, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("subject,true,predicted\ns1,negative,negative\ns01,Negative,negative\ns2,positive,positive\n")
    assert main(["score", str(path)]) == 0
    said = capsys.readouterr().err
    assert "the classes 'Negative' and 'negative' differ only in case" in said
    assert "the subjects 's01' and 's1' differ only in case" in said


def test_score_warns_of_datasets_that_differ_in_case_or_spaces_alone(capsys, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("dataset,subject,true,predicted\nCASME2,1,a,a\ncasme2,1,b,a\nsamm,1,b,b\n")
    assert main(["score", str(path)]) == 0
    assert "the datasets 'CASME2' and 'casme2' differ only in case" in capsys.readouterr().err


def test_score_says_which_clips_it_does_not_compare(capsys, tmp_path):
    """A spreadsheet program ate the zeros of SAMM's subjects, so that only the other dataset is compared."""
    mine, theirs = tmp_path / "mine.csv", tmp_path / "theirs.csv"
    mine.write_text("dataset,subject,clip,true,predicted\ncasme2,1,a,p,p\ncasme2,2,c,n,p\nsamm,6,d,n,n\n")
    theirs.write_text(mine.read_text().replace("samm,6", "samm,006") + "samm,007,e,n,n\n")
    assert main(["score", str(mine), "--against", str(theirs)]) == 0
    said = capsys.readouterr().err
    assert f"1 of 3 clips of {mine} are not in {theirs}, such as samm 6 d, and are not compared" in said
    assert f"2 of 4 clips of {theirs} are not in {mine}, such as samm 006 d, and are not compared" in said


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_score_warns_of_predicted_classes_that_are_never_true(capsys, tmp_path, options):
    (tmp_path / "p.csv").write_text("subject,true,predicted\n1,a,a\n1,b,B\n2,b,nan\n")
    assert main(["score", str(tmp_path / "p.csv"), *options]) == 0
    printed = capsys.readouterr()
    assert printed.err == "merba: predicted, but never true: B, nan\n"
    assert json.loads(printed.out) if options else printed.out.splitlines()[-1] == "classes: a, b"


def test_samples_prints_the_sheet_beside_the_papers_table(capsys, casme2):
    assert main(["samples", "--config", str(casme2)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["casme2", "2", "6", "2", "200", "2", "negative,", "2", "positive,", "2", "surprise"] in lines
    assert ["total", "6", "≠", "145", "6"] in lines


def test_samples_counts_dfme_beside_table_2_and_the_rest_beside_table_3(capsys, tmp_path):
    adapters = ("dfme", "samm")
    datasets = {name: {"adapter": name, "root": str(write_release(name, tmp_path / name))} for name in adapters}
    config = tmp_path / "both.yaml"
    config.write_text(yaml.safe_dump({"data": "own", "datasets": datasets}))
    assert main(["samples", "--config", str(config)]) == 0
    second, third = capsys.readouterr().out.split("Table II, ")[1].split("Table III, ")
    lines = [line.split() for line in second.splitlines()]
    assert lines[3][:4] == ["train", "0", "≠", "161"]
    assert lines[5][0] == "test_b"
    assert lines[5][-3:] == ["7", "≠", "299"]
    assert third.split()[-4:] == ["6", "≠", "133", "6"]


def test_samples_gives_programs_one_json_document(capsys, casme2):
    assert main(["samples", "--config", str(casme2), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["datasets"][0]["clips"] == 6
    (table,) = document["tables"].values()
    assert table[0]["class"] == "negative"
    assert "casme2 2, not 88" in table[0]["differs"]


def test_samples_shows_the_frame_rate_of_videos(capsys, tmp_path):
    """One rate is from the table, one from the video; that of the damaged video is unknown."""
    for name, fps in (("a.avi", 50), ("d.avi", 50), ("b.mp4", 25)):
        video(tmp_path / name, fps=fps)
    (tmp_path / "c.mp4").write_bytes(b"damaged")
    (tmp_path / "clips.csv").write_text(
        "subject,clip,source,emotion,fps\nann,1,a.avi,happiness,120\nann,2,d.avi,anger,\nbob,1,b.mp4,surprise,\nbob,2,c.mp4,fear,\n"
    )
    config = {"data": "own", "datasets": {"mine": {"adapter": "clips", "root": str(tmp_path)}}}
    config["experiments"] = {"a": {"method": "A", "model": {"name": "merba_nano"}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    assert main(["samples", "--config", str(tmp_path / "mine.yaml"), "--json"]) == 0
    (dataset,) = json.loads(capsys.readouterr().out)["datasets"]
    assert dataset["fps"] == "25, 50, 120"


def test_samples_names_what_is_wrong_with_the_data(capsys, casme2):
    casme2.write_text(casme2.read_text().replace("/casme2\n", "/absent\n"))
    assert main(["samples", "--config", str(casme2)]) == 1
    assert "has no 'absent'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("missing", "extra", "arguments"),
    [
        ("cv2", "video", ["predict", "clip.mp4", "--checkpoint", "x.safetensors"]),
        ("cv2", "video", ["samples", "--config", "config/3db.yaml"]),
    ],
)
def test_a_missing_extra_is_named_with_the_command_that_brings_it(missing, extra, arguments):
    program = f"import sys; sys.modules[{missing!r}] = None; from merba.cli import main; sys.exit(main({arguments}))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"merba: the package {missing} is missing; install the extra `{extra}`: ")
