"""At which weights TRAK looks."""

from __future__ import annotations


def chosen_states(gradients, n_checkpoints, recorded_trajectory):
    """The trained weights, and the checkpoints before them that are asked for, latest first.

    Parameters
    ----------
    gradients : RowGradients
    n_checkpoints : int or None
        None: all but the initial one.
    recorded_trajectory : callable
        Gives the Trajectory, or None where there is none.

    Returns
    -------
    states : list of State

    Raises
    ------
    ValueError
        If fewer were recorded.
    """
    if n_checkpoints == 1:
        return [gradients.trained]
    trajectory = recorded_trajectory()
    if trajectory is None:
        raise ValueError(
            f"n_checkpoints={n_checkpoints} needs the record of the training that the net's weights came "
            "from, and there is none: train with callbacks=[TrajectoryRecorder()], or use n_checkpoints=1"
        )
    steps = {checkpoint.step: checkpoint for checkpoint in trajectory.checkpoints if checkpoint.step > 0}
    recorded = [steps[step] for step in sorted(steps, reverse=True)]
    wanted = n_checkpoints or len(recorded)
    if wanted > len(recorded):
        raise ValueError(
            f"expected n_checkpoints up to {len(recorded)}, the number recorded after the initial one, got "
            f"{wanted}: train with callbacks=[TrajectoryRecorder(n_checkpoints={wanted})]"
        )
    earlier = [gradients.state(recorded[i * len(recorded) // wanted]) for i in range(1, wanted)]
    return [gradients.trained, *earlier]
