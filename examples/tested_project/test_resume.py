"""Run by `pytest`, with bygones installed: red as soon as train.py forgets something on resuming."""


def test_a_resumed_run_is_the_uninterrupted_one(bygones_resume):
    bygones_resume("train.py", resume="--resume last.pt").assert_nothing_lost()
