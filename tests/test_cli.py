"""The command `merba`: what it prints and how it ends."""

import pytest

from merba.cli import main


def test_model_prints_table_1_of_the_paper(capsys):
    assert main(["model", "merba_base"]) == 0
    lines = capsys.readouterr().out.splitlines()
    total = lines[-1].split()
    assert total[0] == "total"
    assert 92e6 < int(total[-3].replace(",", "")) < 96e6
    assert 13 < float(total[-2]) < 17
    attention = next(line for line in lines if "stage 4: self-attention" in line)
    assert "1024×7×7" in attention


def test_an_unknown_model_is_an_error_that_names_the_known_ones(capsys):
    assert main(["model", "merba_huge"]) == 1
    output = capsys.readouterr()
    assert "merba: unknown model 'merba_huge'; known: merba_base" in output.err
    assert output.out == ""


def test_wrong_usage_ends_with_2():
    with pytest.raises(SystemExit) as caught:
        main(["no-such-command"])
    assert caught.value.code == 2
