"""Scoring of speaker recognition: verification, open-set identification, normalization.

Computation is in NumPy. PyTorch is only loaded for large matrix products, on a CUDA device.
"""

from __future__ import annotations

from voxblink2_lib.scoring.calibration import Calibration, fit_calibration
from voxblink2_lib.scoring.centring import centre_embeddings
from voxblink2_lib.scoring.condition_files import read_conditions
from voxblink2_lib.scoring.conditions import measure_conditions
from voxblink2_lib.scoring.costs import Costs
from voxblink2_lib.scoring.det import DetCurve, Sweep
from voxblink2_lib.scoring.embeddings import Embeddings, read_embeddings
from voxblink2_lib.scoring.evaluation import evaluate_trials
from voxblink2_lib.scoring.intervals import bootstrap_intervals
from voxblink2_lib.scoring.normalization import as_norm, s_norm
from voxblink2_lib.scoring.open_set import OpenSetResult, open_set_identification
from voxblink2_lib.scoring.open_set_report import evaluate_protocol
from voxblink2_lib.scoring.paired import compare_systems
from voxblink2_lib.scoring.protocols import read_protocols
from voxblink2_lib.scoring.trial_lists import read_trials
from voxblink2_lib.scoring.trials import TrialList, cosine_scores, score_trials
from voxblink2_lib.scoring.verification import act_dcf, cllr, eer, min_cllr, min_dcf
from voxblink2_lib.scoring.weighted import WeightedSweep

__all__ = [
    "eer",
    "min_dcf",
    "act_dcf",
    "cllr",
    "min_cllr",
    "Sweep",
    "WeightedSweep",
    "DetCurve",
    "bootstrap_intervals",
    "compare_systems",
    "Costs",
    "open_set_identification",
    "OpenSetResult",
    "s_norm",
    "as_norm",
    "centre_embeddings",
    "Calibration",
    "fit_calibration",
    "read_trials",
    "TrialList",
    "cosine_scores",
    "score_trials",
    "read_embeddings",
    "Embeddings",
    "evaluate_trials",
    "evaluate_protocol",
    "read_conditions",
    "measure_conditions",
    "read_protocols",
]
