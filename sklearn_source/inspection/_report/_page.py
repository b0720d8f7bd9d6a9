"""A report as one file of HTML, which loads nothing."""

from __future__ import annotations

import importlib

import numpy as np
from sklearn.utils import Bunch

from . import _sentences as words
from . import _snippets as snippets
from ._cards import Cards
from ._histogram import HEIGHT, WIDTH, histogram

_MAX_BYTES = 2_000_000
# (pixels of an image, letters of a text): what is tried in turn until the page is small enough.
_SIZES = ((96, 600), (64, 400), (48, 250), (32, 160), (20, 100), (12, 60))
_MOST_ISSUES, _MOST_OF_GROUP, _MOST_OF_REGION, _MOST_REGIONS = 100, 8, 6, 5


def render(report):
    """The page of an :class:`AttributionReport`: a str, of at most 2 MB but for a title or names without end.

    Raises
    ------
    ImportError
        Without jinja2.
    """
    template = _template()
    page = ""
    for side, n_letters in _SIZES:
        page = template.render(_context(report, Cards(report.rows, side, n_letters)))
        if len(page.encode("utf-8")) <= _MAX_BYTES:
            break
    return page


def _template():
    try:
        jinja2 = importlib.import_module("jinja2")
    except ImportError as error:
        raise ImportError(
            "the page of a report is written with jinja2: pip install jinja2, or sklearn-source[report]; issues_, "
            "actions_ and groups_ are there without it"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return environment.get_template("report.html")


def _context(report, cards):
    question, rows, found = report.question, report.rows, report.found
    actions = _actions(report)
    told = [action.cautions for action, effect in zip(actions, report.found.effects) if effect is not None]
    # Of all actions alike, so said once, where it is seen.
    common = [caution for caution in told[0] if all(caution in own for own in told)] if told else []
    for action in actions:
        action.doubts += [caution for caution in action.cautions if caution not in common]
    return {
        "title": found.title,
        "name": type(question.estimator).__name__,
        "kind": rows.kind,
        "facts": _facts(question),
        "why": question.why,
        "why_not_shown": rows.why_not,
        "unit": rows.unit,
        "has_unit": question.has_unit,
        "unit_sentence": words.unit_of_scores(question, rows),
        "certainty": words.certainty(question),
        "summary": _summary(question, found),
        "setup": snippets.setup(question, type(question.method).__name__),
        "actions": actions,
        "common_cautions": common,
        "predicts": any(effect is not None for effect in found.effects),
        "groups": _groups(question, rows, found, cards),
        "issues": _issues(question, rows, found, cards),
        "queries": [_query(report, place, cards) for place in range(len(found.shown))],
        "regions": _regions(found, cards),
        "confidence": f"{found.confidence:.0%}",
        "histogram_size": (WIDTH, HEIGHT),
    }


def _facts(question):
    net = getattr(question.estimator, "net_", None)
    facts = [("Method", type(question.estimator).__name__)]
    if net is not None:
        facts.append(("Network", f"{type(net).__name__} around {type(net.module_).__name__}"))
    facts.append(("Training rows", f"{question.estimator.n_train_:,}"))
    facts.append(("Held-out rows", f"{question.n_query:,}"))
    if question.measurement is not None:
        facts.append(("Measured", question.measurement))
    return facts


def _summary(question, found):
    """Numbers with what they are of: none of a finding that is not there."""
    tiles = []
    if question.answers.wrong is not None:
        n_wrong = int(question.answers.wrong.sum())
        accuracy = f"errors of {question.n_query:,} held-out rows (accuracy {1 - n_wrong / question.n_query:.1%})"
        tiles.append((f"{n_wrong:,}", accuracy, None))
    elif question.answers.loss is not None:
        tiles.append((words.number(question.answers.loss.mean()), "mean loss of the held-out rows", None))
    n_labels = int(found.issues["is_label_issue"].sum()) if "is_label_issue" in found.issues else 0
    if n_labels:
        tiles.append((f"{n_labels:,}", "training rows with a doubtful label", "issues"))
    elif len(found.issues["row"]):
        tiles.append((f"{len(found.issues['row']):,}", "training rows to look at", "issues"))
    if len(found.groups):
        tiles.append((f"{len(found.groups):,}", "groups of training rows behind the errors", "groups"))
    columns = found.actions
    if len(columns["action"]):
        name = next((name for name in ("errors", "loss") if words.has(columns, name, 0)), None)
        if name is not None:
            change, low, high = words.of(columns, name, 0)
            of_what = f"{'errors' if name == 'errors' else 'mean loss'} ({words.ends(low, high)})"
            told = "; ".join([f"{of_what}, predicted of the best action", *words.doubts(columns, 0)])
            tiles.append((words.signed(change), told, "actions"))
    return [Bunch(number=number, words=text, section=section) for number, text, section in tiles]


def _actions(report):
    columns, question, found = dict(report.found.actions), report.question, []
    for name in [name for name in columns if name.startswith("measurement_")]:
        columns[name] = columns[name] * report.rows.scale
    for i in range(len(columns["action"])):
        effect = report.found.effects[i]
        weight = None if effect is None else effect.weight
        found.append(
            Bunch(
                number=i, action=columns["action"][i], description=columns["description"][i],
                n_rows=int(columns["n_rows"][i]), errors=words.interval(columns, "errors", i),
                accuracy=_accuracy(columns, i, question.n_query), loss=words.interval(columns, "loss", i),
                measurement=words.interval(columns, "measurement", i),
                errors_number=_sortable(columns, "errors", i), loss_number=_sortable(columns, "loss", i),
                measurement_number=_sortable(columns, "measurement", i),
                sentence=words.sentence_of_action(columns, i, question.n_query, report.found.confidence),
                cautions=list(columns["cautions"][i]), doubts=words.doubts(columns, i),
                confirmed=confirmed_words(report.tables, i),
                code=snippets.of_action(
                    question, i, columns["action"][i], columns["rows"][i], columns["labels"][i], weight
                ),
            )
        )  # fmt: skip
    return found


def confirmed_words(tables, i):
    """What retraining showed of an action, in words; empty before it was trained."""
    if i not in tables:
        return ""
    table = tables[i]
    known = {name: j for j, name in enumerate(table["quantity"])}
    name = next(name for name in ("errors", "loss", "measurement") if name in known)
    predicted, got, error = (table[column][known[name]] for column in ("predicted", "retrained", "retrained_error"))
    spread = f" ± {words.number(error)}" if np.isfinite(error) else ""
    return f"{name}: predicted {words.signed(predicted)}, retrained {words.signed(got)}{spread} (standard error)"


def _accuracy(columns, i, n_query):
    if not words.has(columns, "errors", i):
        return ""
    value, low, high = (-100 * part / n_query for part in words.of(columns, "errors", i))
    return f"{words.signed(value)} points ({words.ends(high, low)})"


def _sortable(columns, name, i):
    return float(columns[f"{name}_change"][i]) if words.has(columns, name, i) else ""


def _explained(share):
    return "" if np.isnan(share) else f"{abs(share):.0%} {'less' if share >= 0 else 'more'}"


def _groups(question, rows, found, cards):
    groups = []
    for number, group in enumerate(found.groups):
        own = [] if rows.key_words is None else rows.key_words.of(rows.shown.train(group.rows[:100]))
        error = getattr(group, "error", None)
        groups.append(
            Bunch(
                number=number, description=group.description, n_rows=len(group.rows), n_queries=len(group.queries),
                harm=words.number(float(group.harm) * rows.scale),
                error="" if error is None else f"± {words.number(float(error) * rows.scale)}",
                share=f"{group.share:.0%}", explained=_explained(group.explained),
                key_words=own, cards=cards.train(group.rows[:_MOST_OF_GROUP], own),
                queries=[cards.query(i) for i in group.queries[:_MOST_OF_GROUP]], code=snippets.of_group(number),
            )
        )  # fmt: skip
    return groups


def _issues(question, rows, found, cards):
    issues = found.issues
    places, lines = _of_every_kind(issues["suggestion"], _MOST_ISSUES), []
    for j, card in zip(places, cards.train(issues["row"][places])):
        value = {name: column[j] for name, column in issues.items()}
        doubted = value.get("is_label_issue", False)
        label = rows.answer(value["label"]) if "label" in value else card.target
        lines.append(
            Bunch(
                card=card, label=label, suggested=rows.answer(value["suggested_label"]) if doubted else "",
                suggestion=value["suggestion"], reason=value["reason"], harm=words.number(value["harm"] * rows.scale),
                harm_number=float(value["harm"]), n_harmed=int(value["n_harmed"]),
                self_influence=words.number(value.get("self_influence")),
                self_influence_number=float(value.get("self_influence", np.nan)),
                loss=words.number(value.get("loss")), loss_number=float(value.get("loss", np.nan)),
            )
        )  # fmt: skip
    return Bunch(
        lines=lines, n=len(issues["row"]), n_asked=len(question.asked), code=snippets.of_issues(),
        suggestions=sorted({line.suggestion for line in lines}), labels=sorted({line.label for line in lines}),
        has_labels="label" in issues or any(line.label for line in lines), has_loss="loss" in issues,
    )  # fmt: skip


def _of_every_kind(suggestions, n):
    """Places of at most ``n`` rows, the first of each suggestion, in order: none crowds out the others."""
    kinds = [np.flatnonzero(suggestions == kind) for kind in dict.fromkeys(suggestions)]
    taken = [[] for _ in kinds]
    while sum(map(len, taken)) < min(n, len(suggestions)):
        free = n - sum(map(len, taken))
        left = [k for k in range(len(kinds)) if len(taken[k]) < len(kinds[k])]
        for k in left:
            end = len(taken[k]) + max(1, free // len(left))
            taken[k] = list(kinds[k][: min(end, len(taken[k]) + n - sum(map(len, taken)))])
    return np.sort(np.concatenate(taken).astype(np.int64)) if taken else np.zeros(0, dtype=np.int64)


def _query(report, place, cards):
    rows, found, question = report.rows, report.found, report.question
    i, profile = int(found.shown[place]), found.profile.queries[place]
    errors = None if found.errors is None else found.errors[place]
    display = rows.display(i, profile, errors)
    groups = rows.unshown(i, profile, errors) if display is None else (display.supporting, display.opposing)
    headings = ("Highest scores", "Lowest scores")
    if question.has_unit:
        headings = (f"Raised {rows.measured(i)}", f"Lowered {rows.measured(i)}")
    own = [[], []]
    if rows.key_words is not None:
        own = [rows.key_words.of(group.X) if len(group.X) else [] for group in groups]
    contrast = found.contrasts.get(i)
    shown_unit = "" if not question.has_unit or rows.unit in headings[0] else rows.unit
    return Bunch(
        i=i,
        unit=shown_unit,
        card=cards.query(i, {*own[0], *own[1]}),
        loss=words.number(_value(question.answers.loss, i)),
        headings=headings,
        strips=cards.groups(groups, own),
        key_words=own,
        histogram=histogram(profile, rows.scale, errors),
        comparison=cards.comparison(display) if rows.kind == "table" else None,
        target_name="target" if rows.shown is None else rows.shown.target_name,
        n_train=question.estimator.n_train_,
        contrast=None if contrast is None else _contrast(rows, contrast, cards),
        code=snippets.of_query(question, i),
    )


def _contrast(rows, contrast, cards):
    found = cards.train(contrast.rows)
    for card, predicted, true in zip(found, contrast.predicted, contrast.true):
        card.predicted, card.true = words.signed(predicted * rows.scale), words.signed(true * rows.scale)
        card.difference = words.signed((predicted - true) * rows.scale)
    return found


def _regions(found, cards):
    return [
        Bunch(
            number=number, n_queries=len(region.queries), n_rows=len(region.rows), n_wrong=region.n_wrong,
            effective=words.number(round(region.median_rows)),
            description=region.description, usual=words.number(round(region.usual_rows)),
            queries=[cards.query(i) for i in region.queries[:_MOST_OF_REGION]],
            cards=cards.train(region.rows[:_MOST_OF_REGION]), code=snippets.of_region(number),
        )
        for number, region in enumerate(found.regions[:_MOST_REGIONS])
    ]  # fmt: skip


def _value(values, i):
    return None if values is None else float(values[i])
