"""Two drivers on one study at once."""

from __future__ import annotations

import random
import time

from tests.faults.places import Outcome, Workshop


def in_a_directory(shop: Workshop, rng: random.Random) -> Outcome:
    """One trains, the other is told who does; when the one is killed, the other may at once."""
    place = shop.place()
    first, second = place.run(), place.run()
    place.wait_until(lambda: None not in (first.status(), second.status()), first, "one is refused")
    trains, refused = (second, first) if first.status() == 2 else (first, second)
    # The study may have ended in the meantime, then the second found nothing to do.
    status = refused.wait()
    place.expect(status == 2, f"the second one ended with {status}: {refused.said()}")
    place.expect(f"process {trains.pid}" in refused.said(), f"not told by whom: {refused.said()}")
    place.expect_no_traceback(refused)
    time.sleep(rng.uniform(0, 1))
    trains.kill()
    place.finish()
    return place.judge("two drivers, one directory", 1)
