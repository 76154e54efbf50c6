"""Derivatives of training steps: tangents and adjoints of a run, proved by finite differences."""

from bygones.dynamics.linear.check import TangentCertificate, check_tangent

__all__ = ["TangentCertificate", "check_tangent"]
