"""Integration: several experts' responses become one answer, with a ledger of who contributed what
and how conflicts were settled.
"""

from domainfusion.distillation.integration.conflicts import contradict
from domainfusion.distillation.integration.integrator import (
    OnUnverified,
    ResponseIntegrator,
    Strategy,
)
from domainfusion.distillation.integration.model_reading import Experts
from domainfusion.distillation.integration.planning import OnDisagreement
from domainfusion.distillation.integration.reading import (
    Task,
)
from domainfusion.distillation.integration.verifying import (
    CrossEncoderVerifier,
    Verifier,
    VerifierFinding,
)

__all__ = [
    "CrossEncoderVerifier",
    "Experts",
    "OnDisagreement",
    "OnUnverified",
    "ResponseIntegrator",
    "Strategy",
    "Task",
    "Verifier",
    "VerifierFinding",
    "contradict",
]
