import UI

/// When which revision was the newest, as this console saw it. etcd keeps no times; these are observations, as exact as they were
/// frequent, and only for what happened while the console was there.
struct RevisionClock {
    private struct Sighting {
        var revision: Int64
        var at: Moment
    }

    /// Oldest first, revisions ascending. Bounded: the older half is thinned out.
    private var sightings: [Sighting] = []
    private static let limit = 8_192
    /// A revision that came between two sightings this far apart has no time worth showing.
    private static let blurMilliseconds: Int64 = 2_000

    mutating func saw(_ revision: Int64, at moment: Moment) {
        guard let last = sightings.last else {
            sightings.append(Sighting(revision: revision, at: moment))
            return
        }
        if revision == last.revision {
            // Still the newest: what comes next came after this moment. The first sighting of it stays.
            if sightings.count > 1, sightings[sightings.count - 2].revision == revision {
                sightings[sightings.count - 1].at = max(last.at, moment)
            } else {
                sightings.append(Sighting(revision: revision, at: moment))
            }
        } else if revision > last.revision {
            sightings.append(Sighting(revision: revision, at: moment))
        }
        if sightings.count > RevisionClock.limit {
            let half = sightings.count / 2
            sightings = stride(from: 0, to: half, by: 2).map { sightings[$0] } + sightings[half...]
        }
    }

    /// When the revision was made, as nearly as is known; nil when that was before this console or too blurred.
    func time(of revision: Int64) -> Moment? {
        // The first sighting at or after it, and the one before.
        var low = 0, high = sightings.count
        while low < high {
            let middle = (low + high) / 2
            if sightings[middle].revision < revision { low = middle + 1 } else { high = middle }
        }
        guard low > 0, low < sightings.count else { return nil }
        let found = sightings[low].at
        return found - sightings[low - 1].at <= RevisionClock.blurMilliseconds ? found : nil
    }
}
