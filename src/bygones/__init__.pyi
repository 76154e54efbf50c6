# 1. Describe a run: ordinary PyTorch objects by name, and the order of the data
from .training.recipe import Parts as Parts
from .training.recipe import Memory as Memory
from .training.recipe import Recipe as Recipe
from .training.recipe import supervised as supervised
from .training.orders import Sequential as Sequential
from .training.orders import ShuffleOnce as ShuffleOnce
from .training.orders import Reshuffle as Reshuffle
from .training.orders import WithReplacement as WithReplacement
from .training.orders import Curriculum as Curriculum
from .training.orders import Blocked as Blocked
from .training.run import Run as Run
from .training.fork_check import check_fork as check_fork

# 2. Say what is compared: interventions, windows, arms, probes, a study
from .core.values import Window as Window
from .core.values import Lifetime as Lifetime
from .training.treatment import Treatment as Treatment
from .training.interventions import Carry as Carry
from .training.interventions import Sham as Sham
from .training.interventions import Reset as Reset
from .training.interventions import Scale as Scale
from .training.interventions import Nudge as Nudge
from .training.interventions import Kick as Kick
from .training.interventions import MatchedNull as MatchedNull
from .training.interventions import Hold as Hold
from .training.interventions import Permute as Permute
from .training.interventions import Transplant as Transplant
from .training.interventions import Reseed as Reseed
from .training.interventions import Resample as Resample
from .training.interventions import SwapWindows as SwapWindows
from .training.interventions import Replace as Replace
from .training.probes import Logits as Logits
from .training.probes import Values as Values
from .training.probes import Features as Features
from .training.probes import Carrier as Carrier
from .study.design import Arm as Arm
from .study.design import Study as Study
from .study.design import opposite_arm as opposite_arm
from .analysis.multiplicity import Family as Family

# 3. Train what is missing: plan, measure, executors, stores
from .study.plan import plan as plan
from .study.measure import measure as measure
from .study.sequential import measure_until as measure_until
from .study.executors import Serial as Serial
from .study.executors import Processes as Processes
from .study.executors import Ray as Ray
from .study.executors import Slurm as Slurm
from .store import open_store as open_store
from .store import FolderStore as FolderStore
from .store import MemoryStore as MemoryStore
from .store import RemoteStore as RemoteStore
from .store.outcomes import read_manifest as read_manifest
from .store.outcomes import read_outcomes as read_outcomes

# 4. Estimate: from outcomes to effects with intervals and references
from .analysis.effects import effect as effect
from .analysis.effects import all_effects as all_effects
from .analysis.effects import per_seed as per_seed
from .analysis.effects import washout as washout
from .analysis.contrast import contrast as contrast
from .analysis.antithetic import antithetic as antithetic
from .analysis.repeats import repeats as repeats
from .analysis.observed_models import observing as observing
from .analysis.estimators import Estimate as Estimate
from .analysis.estimators import half_width_reached as half_width_reached
from .analysis.coverage import measured_coverage as measured_coverage
from .analysis.multiplicity import adjust as adjust
from .analysis.multiplicity import family_of as family_of
from .analysis.equivalence import tost as tost
from .analysis.equivalence import equivalent_effect as equivalent_effect
from .analysis.power import seeds_needed as seeds_needed
from .analysis.power import pairs_for_half_width as pairs_for_half_width
from .analysis.power import pairs_for_effect as pairs_for_effect
from .analysis.power import detectable_effect as detectable_effect
from .analysis.pairing import pairing_gains as pairing_gains
from .analysis.meta_analysis import pool as pool
from .analysis.compare_studies import side_by_side as side_by_side
from .analysis.function_field import function_field as function_field
from .analysis.function_field import moved_inputs as moved_inputs
from .analysis.breakdown import breakdown as breakdown
from .analysis.calibration import reliability_curves as reliability_curves
from .analysis.calibration import brier_parts as brier_parts
from .analysis.calibration import brier_change as brier_change
from .dynamics import half_life as half_life
from .dynamics import barrier as barrier
from .analysis.designs import compare_designs as compare_designs

# 5. Publish: reports, figures, checklists, bundles, ledgers
from .publish.report import write_report as write_report
from .publish.report import write_comparison as write_comparison
from .publish.report import forest as forest
from .publish.report.field_figures import field_picture as field_picture
from .publish.report.field_figures import breakdown_figure as breakdown_figure
from .publish.report.field_figures import reliability_diagram as reliability_diagram
from .publish.checklist import checklist as checklist
from .publish.bundle import write_bundle as write_bundle
from .publish.bundle import verify_bundle as verify_bundle
from .study.record import record as record
from .store.ledger import read_ledger as read_ledger
from .store.ledger_diff import first_divergence as first_divergence

# 6. Unmodified scripts: studies, audits, a mark, and the errors of all of it
from .attach.isolation.script import Script as Script
from .scripts.plan import ScriptRequest as ScriptRequest
from .scripts.plan import plan_script as plan_script
from .scripts.measure import measure_script as measure_script
from .scripts.record import record_script as record_script
from .audit.resume_check import ResumeRequest as ResumeRequest
from .audit.resume_check import audit_resume as audit_resume
from .audit.resuming.function_check import check_resume as check_resume
from .audit.sufficiency import check_sufficiency as check_sufficiency
from .audit.observers import find_observers as find_observers
from .audit.transparency import check_transparency as check_transparency
from .audit.operations.divergence import find_divergence as find_divergence
from .attach.watch import watch as watch
from .core.errors import BygonesError as BygonesError
