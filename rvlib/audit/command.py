"""`rvlib audit` from a terminal: what needs no language model is done here, the rest by `rvlib.audit.run`.

rvlib audit --replies FILE --scores FILE      an audit of replies and scores that you have
rvlib audit --replies FILE --export FILE      those replies in the form in which scores are asked for
rvlib audit --compare A B                     two audits, paired over their prompts
"""

import shlex
import sys
from collections.abc import Sequence
from typing import Any

from rvlib._terminal import sentence
from rvlib.audit import report
from rvlib.audit.arguments import parser
from rvlib.audit.comparison import compare
from rvlib.audit.exchange import read_replies, read_scores
from rvlib.audit.export import write_replies
from rvlib.audit.scored_files import (
    ScoresFile,
    audit_files,
    check_one_meaning,
    names_a_model,
    score_columns,
    score_label,
)
from rvlib.files import data_folder, fingerprint

OF_DRAWING = {"prompts", "column", "max_new_tokens", "temperature", "seed", "engine"}  # options about drawing replies
OF_SCORING = {"dtype", "compare_dtype", "batch_size", "skip_bad_lines", "trust_remote_code"}  # … about scoring them


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `rvlib audit`; exits with one sentence for what is missing or wrong."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(arguments)
    try:
        defaults = vars(parser().parse_args([]))
        given = {name for name, value in vars(options).items() if value != defaults[name]}
        _check_used(options, given)
        if options.compare:
            _compare(options)
        elif options.replies and options.export:
            if options.export.resolve() == options.replies.resolve():
                raise ValueError(f"Replies must be exported to another file than {options.replies}, which has them.")
            drawn = read_replies(options.replies, num_generations=options.num_generations, limit=options.limit)
            known = drawn.prompts, drawn.replies, drawn.pairs, drawn.log_probs, drawn.ended
            print(f"{write_replies(options.export, *known)} replies to be scored: {options.export}")
        else:
            scores = options.scores
            if options.replies and names_a_model(options.ground_truth):  # unless a score has this name
                scores = [read_scores(path) for path in scores]
            if _of_files_alone(options, scores):
                _refuse(given & OF_SCORING, "Scores of files need no model, and nothing of how one runs")
                _audit_files(options, scores, shlex.join(["rvlib", "audit", *arguments]))
            else:
                from rvlib.audit import run  # needs torch

                run.main(arguments, scores)
    except (OSError, ValueError) as error:
        sys.exit(sentence(error))


def _refuse(unused: set[str], mode: str) -> None:
    """ValueError, in one sentence, if there are options that a mode of the command does not use."""
    if unused:
        names = ", ".join(f"--{'no-texts' if name == 'texts' else name.replace('_', '-')}" for name in sorted(unused))
        raise ValueError(f"{mode}, got {names} beside it; leave {'this' if len(unused) == 1 else 'these'} out.")


def _check_used(options: Any, given: set[str]) -> None:
    """ValueError, in one sentence, for options that would change nothing; given: the names of those that are set."""
    if options.compare:
        _refuse(given - {"compare", "folder"}, "--compare takes two finished audits, and --folder for its report")
    if options.replies:
        _refuse(given & OF_DRAWING, "Replies that were drawn elsewhere are audited as they are with --replies")
    if options.export:
        _refuse(given & {"scores", "dry_run"}, "--export writes replies to be scored, and stops")
    if options.replies and options.export:
        _refuse(given - {"replies", "export", "num_generations", "limit"}, "--export writes the replies of --replies")


def _of_files_alone(options: Any, scores: Sequence[ScoresFile]) -> bool:
    """Whether replies and all scores come from files, and nothing is to be scored here."""
    if not options.replies or not options.scores or options.reward_model:
        return False
    if not names_a_model(options.ground_truth):
        return True
    columns = score_columns(scores)
    check_one_meaning(columns, options.ground_truth)
    return score_label(columns, options.ground_truth) is not None


def _compare(options: Any) -> None:
    comparison = compare(*options.compare)
    print(comparison.text())
    if options.folder:
        comparison.write(options.folder)
        print(f"Report: {options.folder / 'comparison.html'}")


def _audit_files(options: Any, scores: Sequence[ScoresFile], command: str) -> None:
    files = [options.replies, *options.scores]
    key = fingerprint([options.ground_truth, options.group, options.num_generations, options.limit], *files)
    folder = options.folder or data_folder() / "audits" / f"{options.replies.name.split('.')[0]}-{key[:8]}"
    audit = audit_files(
        options.replies,
        scores,
        ground_truth=options.ground_truth,
        policy=options.policy,
        num_generations=options.num_generations,
        limit=options.limit,
        group=options.group,
        min_scored=options.min_scored,
        texts=options.texts,
        folder=None if options.dry_run else folder,
        command=command,
    )
    if options.dry_run:
        print("Nothing is to be drawn or scored: replies and scores are read from files, which takes seconds.")
        return
    report.show(audit)
    print(f"Report: {folder / 'audit.html'}")
