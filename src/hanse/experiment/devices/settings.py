"""The schema's section on simulated devices: the figures of one, and where they are from."""

from typing import Annotated

from pydantic import Field, model_validator

from hanse.experiment.sections import SettingsModel

Figure = Annotated[float, Field(gt=0, le=1e9)]
Share = Annotated[float, Field(gt=0, le=1)]

MEASURED = ("mfu", "operator_us")  # here, if they are not written


class DeviceSettings(SettingsModel):
    """The figures of a device that a simulated client works on; none: not known.

    fp32_tflops, bf16_tflops: its peak in matrix products of each precision, in 10¹² floating-point
        operations a second, without sparsity.
    memory_gb: that training can use, in 10⁹ bytes.
    bandwidth_gb_s: of this memory, in 10⁹ bytes a second.
    up_mbps, down_mbps: rates of its link in 10⁶ bits a second; those of `links` precede them.
    watts: that it takes while it trains.
    mfu: the share of its peak that products of a training step reach on it (model FLOPs
        utilization, without the time between operators); none: the share that this machine
        reaches, measured once when a run begins, and written to the run folder.
    operator_us: microseconds that Python and torch take for each operator before it computes;
        none: those that this machine takes, measured as `mfu` is.
    source: where the figures are from, for readers.
    """

    fp32_tflops: Figure | None = None
    bf16_tflops: Figure | None = None
    memory_gb: Figure | None = None
    bandwidth_gb_s: Figure | None = None
    up_mbps: Figure | None = None
    down_mbps: Figure | None = None
    watts: Figure | None = None
    mfu: Share | None = None
    operator_us: Annotated[float, Field(ge=0, le=1e6)] | None = None
    source: str = ""

    @model_validator(mode="after")
    def _has_a_peak(self) -> "DeviceSettings":
        if self.fp32_tflops is None and self.bf16_tflops is None:
            raise ValueError(
                "a device needs fp32_tflops or bf16_tflops, from which its seconds of training "
                "follow; write one of them, in 10¹² operations a second."
            )
        return self

    def uses_bf16(self, wanted: bool) -> bool:
        """True if it computes in bfloat16: if that is wanted and known, or if nothing else is."""
        return self.bf16_tflops is not None and (wanted or self.fp32_tflops is None)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The names of the figures that are not known, without those that are measured here."""
        figures = self.model_dump(exclude={*MEASURED, "source"})
        return tuple(name for name, value in figures.items() if value is None)
