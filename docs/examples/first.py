import bygones
from bygones import Arm, Reset, Study, Treatment, Window
from bygones.zoo.regimes import digits

at = Window(100, 101)  # one boundary: after 100 optimizer steps
arms = [
    Arm("reset momentum", Treatment("moments", Reset(), at)),
    Arm("reset batchnorm", Treatment("batchnorm", Reset(), at)),
]
study = Study(digits.recipe, arms, fork_at=100, horizons=(1, 50), seeds=range(5))
result = bygones.Result(bygones.measure(study))
print(result, end="\n\n")
print(result.effects.select(arm="reset momentum", horizon=50, metric="tv"))
