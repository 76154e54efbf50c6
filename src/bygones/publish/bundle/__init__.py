"""Bundle: a study as one self-contained folder or zip, and its verification. No torch.

    README.md bundle.json                what it is, its licence, what code it brings
    study.json contract.json             the design; under which conditions bits can be expected to agree
    manifest.json objects/ab/cdef…       where each outcome lies; the outcomes, named by their SHA-256
    checklist.json checklist.md          what a paper should say of the study, filled in from the record
    ledgers/seed-0/00-control.jsonl …    what was shown and carried in each arm of each seed
    effects.json                         what was found, as `bygones report --json` prints it
    code/1/…                             the recipe's own source
    ro-crate-metadata.json               the same for archives, as an RO-Crate
    manifest-sha256.txt                  the SHA-256 of every other file, for `sha256sum -c`

The SHA-256 of the last file is *the bundle's digest*. Whoever changes a file can write that one anew; so
the digest has to be known from elsewhere for the bundle to prove anything about its origin.
"""

from bygones.publish.bundle.grade import Grade
from bygones.publish.bundle.verify import Verified, verify_bundle
from bygones.publish.bundle.write import write_bundle

__all__ = ["Grade", "Verified", "verify_bundle", "write_bundle"]
