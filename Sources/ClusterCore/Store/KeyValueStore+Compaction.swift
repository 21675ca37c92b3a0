import Base

/// Where compactions stand. The logical effect is immediate; the index is pruned in steps, and what pruning dropped is
/// deleted from the backend in bounded batches once no snapshot from before the compaction lives.
struct CompactionState {
    /// Everything below is removed, and that is durable.
    var finished = Revision(-1)
    /// Not yet in a batch.
    var unwrittenSchedule: Revision?
    /// The pass over the index that is under way.
    private(set) var pruning: Pass?
    /// A compaction that came meanwhile; a later one replaces it.
    private var next: Pass?
    /// Passes whose pruning is done, oldest first: their deletions go out in order.
    private var removals: [Removal] = []
    /// Epochs that ended with a compaction, oldest first. One that only this array holds has no snapshot left.
    private var retired: [SnapshotEpoch] = []
    private var releasedEpochs = 0
    private var retiredEpochs = 0

    struct Pass {
        var target: Revision
        /// The pass's deletions wait for this many epochs to be released.
        var epochs: Int
        /// The first key not yet visited.
        var cursor: [UInt8] = []
        var dropped: [PrunedChanges] = []
    }

    private struct Removal {
        var target: Revision
        var epochs: Int
        var changes: [PrunedChanges]
        /// The next to hand out: a place in `changes`, and how many of it went before.
        var next = 0
        var taken = 0
    }

    mutating func schedule(_ target: Revision, retiring epoch: SnapshotEpoch?) {
        if let epoch {
            retired.append(epoch)
            retiredEpochs += 1
        }
        unwrittenSchedule = target
        let pass = Pass(target: target, epochs: retiredEpochs)
        if pruning == nil { pruning = pass } else { next = pass }
    }

    var hasPruning: Bool { pruning != nil }

    /// Gives the running pass out for a step; to be given back with `resume` or `finish`.
    mutating func takePass() -> Pass? {
        defer { pruning = nil }
        return pruning
    }
    mutating func resume(_ pass: Pass) { pruning = pass }
    mutating func finish(_ pass: Pass) {
        removals.append(Removal(target: pass.target, epochs: pass.epochs, changes: pass.dropped))
        pruning = next
        next = nil
    }

    mutating func releaseEpochs() {
        while !retired.isEmpty && isKnownUniquelyReferenced(&retired[0]) {
            retired.removeFirst()
            releasedEpochs += 1
        }
    }

    private var isFirstReleased: Bool { removals.first.map { $0.epochs <= releasedEpochs } ?? false }

    /// Deletions that no snapshot holds back.
    var hasReadyDeletions: Bool {
        mutating get {
            releaseEpochs()
            return isFirstReleased
        }
    }

    /// Hands out deletions of the oldest pass that may be done. Returns the pass's target with its last deletion.
    mutating func takeDeletions(atMost limit: Int, _ body: (StoredChange) -> Void) -> Revision? {
        var finished: Revision?
        var left = limit
        while isFirstReleased {
            while left > 0 && removals[0].next < removals[0].changes.count {
                let changes = removals[0].changes[removals[0].next]
                let end = min(changes.count, removals[0].taken + left)
                for at in removals[0].taken..<end { body(changes[at]) }
                left -= end - removals[0].taken
                removals[0].taken = end
                if end == changes.count {
                    removals[0].next += 1
                    removals[0].taken = 0
                }
            }
            guard removals[0].next == removals[0].changes.count else { break }
            finished = removals[0].target
            removals.removeFirst()
        }
        return finished
    }
}

extension KeyValueStore {
    /// §4.5. Reads below `revision` fail from now on; the rest of the work is in `compactStep` and `takeBatch`.
    /// Errors: `.compacted` at or below the compact revision, `.futureRev` above the current one.
    public func compact(to revision: Revision) throws(ServiceError) {
        guard revision > compactRevision else { throw .compacted }
        guard revision <= self.revision else { throw .futureRev }
        compactRevision = revision
        compaction.schedule(revision, retiring: epoch)
        epoch = SnapshotEpoch()
    }

    /// Whether `compactStep` has work.
    public var hasCompactionWork: Bool { compaction.hasPruning }

    /// Whether the next `takeBatch` deletes history.
    public var hasReadyDeletions: Bool { compaction.hasReadyDeletions }

    /// Everything below is removed from the backend, and that is durable. `physical` compactions are answered when this
    /// reaches their revision.
    public var finishedCompactRevision: Revision { compaction.finished }

    /// Prunes up to `maxKeys` keys of the index. True when no pruning is left; deletions may still be.
    @discardableResult
    public func compactStep(maxKeys: Int = 1_000) -> Bool {
        precondition(maxKeys > 0, "a compaction step over \(maxKeys) keys")
        guard var pass = compaction.takePass() else { return true }
        let target = pass.target.rawValue
        var visited = 0
        var prunable: [[UInt8]] = []
        var resumeAt: [UInt8]?
        index.forEach(in: KeyBounds(start: pass.cursor, end: nil)) { key, entry in
            if visited == maxKeys {
                resumeAt = [UInt8](key)
                return false
            }
            visited += 1
            if entry.pointee.hasPrunable(to: target) { prunable.append([UInt8](key)) }
            return true
        }
        for key in prunable {
            let isKept = index.modify(key) { entry in entry.prune(to: target) { pass.dropped.append($0) } }
            if !isKept { index.remove(key) }
        }
        if let resumeAt {
            pass.cursor = resumeAt
            compaction.resume(pass)
        } else {
            compaction.finish(pass)
        }
        return !compaction.hasPruning
    }
}
