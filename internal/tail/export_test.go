package tail

import "time"

// CheckLoss sets how often consumers without messages are checked for lost ones, and how long a
// message may take. It must be called before [Tail.Run].
func (t *Tail) CheckLoss(every, inFlight time.Duration) { t.checkEvery, t.inFlight = every, inFlight }
