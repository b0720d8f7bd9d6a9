"""Python that goes on from a finding, to be copied."""

from __future__ import annotations

_MOST_ROWS = 60  # written out; more are read from the report


def setup(question, name):
    """What the other snippets take for granted."""
    lines = ["from sklearn_source.inspection import attribution_report, audit_training_rows, predict_action"]
    if question.is_pipeline:
        lines += ["", f"# est: the fitted pipeline that ends in {name}", "X_val = est[:-1].transform(X_query)"]
        lines += ["method = est[-1]"]
    else:
        lines += ["", f"# est: the fitted {name}; X_query, y_query: the held-out rows", "method, X_val = est, X_query"]
    targets = "" if question.y is None else ", y_query"
    lines += [f"report = attribution_report(est, X_query{targets})"]
    return "\n".join(lines)


def of_action(question, number, action, rows, labels, weight):
    """Predict an action, and train to see whether it comes true."""
    if len(rows) > _MOST_ROWS:
        lines = [f'rows = report.actions_["rows"][{number}]']
        told = f'report.actions_["labels"][{number}]'
    else:
        lines, told = [f"rows = {_integers(rows)}"], None if labels is None else _integers(labels)
    options = ""
    if labels is not None:
        lines.append(f"labels = {told}")
        options = ", labels=labels"
    elif weight is not None:
        options = f", weight={weight:g}"
    targets = "" if question.y is None else ", y_query"
    lines.append(f'effect = predict_action(method, "{action}", rows, X_val{targets}{options})')
    lines.append("print(effect)")
    lines.append(f"# trains twice 5 networks: report.confirm(actions=[{number}], n_repeats=5, random_state=1)")
    return "\n".join(lines)


def of_issues():
    """The table, and the labels it suggests."""
    return (
        "issues = report.issues_\n"
        'print(issues["suggestion"][:10], issues["reason"][:10])  # worst first; issues["row"] are places in X_train'
    )


def of_query(question, i):
    """The strongest rows of one held-out row."""
    y = "" if question.y_of_method is None else f", y_query[{i}:{i + 1}]"
    return f"top = method.top_influences(X_val[{i}:{i + 1}]{y}, k=10)\nprint(top.indices[0], top.scores[0])"


def of_region(number):
    """Where rows are missing."""
    return (
        f"region = report.regions_[{number}]\n"
        "print(region.queries)  # held-out rows that rest on few training rows\n"
        "print(region.rows)  # these training rows: collect more like them"
    )


def of_group(number):
    """The rows of a group."""
    return f"group = report.groups_.groups[{number}]\nprint(group.description, group.rows, group.queries)"


def _integers(values):
    return "[" + ", ".join(f"{value:g}" for value in values) + "]"
