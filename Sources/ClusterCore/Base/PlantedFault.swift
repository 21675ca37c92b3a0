/// One-line wrong changes of the engine that the simulator must notice: how we know that it can see. (reliability.md §5.7)
///
/// A site in the engine asks `planted(.name)`. In every ordinary build that is the constant false and leaves no code behind; only the package
/// trait `PlantedFaults` (`swift build --traits PlantedFaults`) makes it a question to `PlantedFault.active`.
public enum PlantedFault: String, CaseIterable, Sendable {
    /// A leader counts its own entries before its disk has them.
    case countsOwnEntriesBeforeSync
    /// A leader takes a follower's commands again when the message comes twice.
    case takesForwardsTwice
    /// A follower acknowledges entries before its disk has them.
    case acknowledgesBeforeSync
    /// A leader commits entries of earlier terms by counting copies. (Raft figure 8)
    case commitsEarlierTermsByCounting
    /// A follower takes entries whose predecessor it does not have as the leader has it.
    case skipsPreviousEntryCheck
    /// A vote is given again to another candidate in the same term.
    case votesTwice
    /// A candidate's log may be behind the voter's.
    case votesForShorterLogs
    /// A majority is one less than it is.
    case countsOneTooFew
    /// A leader answers linearizable reads without asking whether it still leads.
    case readsWithoutRound
    /// A new leader answers reads before it knows the commit index.
    case readsBeforeFirstCommit
    /// A read takes the confirmation of a round that was under way when it came. (incident 23)
    case reusesReadRound
    /// Entries are applied before the member's own disk has them.
    case appliesBeforeSync
    /// A configuration stays in force though its entry was overwritten.
    case keepsOverwrittenConfigurations
    /// Commands that may still be applied are proposed again.
    case proposesAgainInOneTerm
    /// A read is served before what it must see is applied.
    case servesReadsBeforeApply
    /// A deposed leader's word that a lease has expired still counts. (incident 9)
    case expiresLeasesOfOtherTerms
    /// The last key of an ended lease stays.
    case leavesAKeyOfAnEndedLease
    /// Some members apply some deletions not.
    case differsByMember
    /// A snapshot that is behind what a member has is installed all the same.
    case installsOldSnapshots
    /// A streamed snapshot has no leases.
    case leavesLeasesOutOfSnapshots
    /// Compaction drops the deletion at the compact revision. (incident 18)
    case compactsTombstonesAway
    /// Watchers whose history was compacted are not told. (incident 17)
    case keepsWatchersBelowCompaction
    /// A progress notice does not wait for the events that it covers. (incident 15)
    case progressOvertakesEvents
    /// A watcher that catches up misses a revision where the walk ends.
    case catchUpSkipsARevision
    /// A new leader gives every lease a second, however long it is.
    case newLeaderForgetsTimes
    /// A lease is renewed though its end is on the way. (incident 12)
    case renewsLeasesBeingRevoked
    /// A write that was on its way when rights changed is permitted.
    case permitsWhatWasUnderWay
    /// A range is permitted to whoever may have its first key. (incident 45)
    case permitsByFirstKey
    /// The tokens of a deleted user stay good.
    case keepsTokensOfDeletedUsers
    /// A streamed snapshot has no users, roles and permissions. (incident 5)
    case leavesAccountsOutOfSnapshots

    // What crash enumeration must catch.

    /// The log's owner reports a write as durable that it has not synced.
    case reportsWritesBeforeSync
    /// Segments go before the log's new start is on disk. (incident 27)
    case releasesSegmentsBeforeStart
    /// A new segment's name is left to the file system. (incident 28)
    case leavesSegmentNameUnsynced
    /// A new member's directories are left to the file system.
    case leavesDirectoriesUnsynced
    /// A failed sync passes for a good one.
    case ignoresFailedSync
    /// What a dead process had written but not synced is read back and counted as durable.
    case trustsRecoveredTail
    /// The rest of an interrupted write stays in the log behind what comes next. (incident 29)
    case leavesTornTail
    /// The applied index is durable before the data that it stands for. (incident 1)
    case writesAppliedIndexFirst
    /// The store that a snapshot supersedes goes before the log has followed the snapshot. (incident 49)
    case removesSupersededStoreFirst
    /// The log follows a snapshot whose file may yet vanish.
    case installsSnapshotBeforeItsNameIsDurable
    /// A store that was found is used though its name may yet vanish.
    case startsOnStoreWithoutName
    /// A vote is told before it is on disk.
    case votesBeforeSync

    #if PLANTED_FAULTS
    /// The one that the process plants. Set before the first member starts; the simulator has one thread a cluster and one fault a process.
    nonisolated(unsafe) public static var active: PlantedFault?
    #endif

    /// Whether this build can plant faults at all.
    public static var isCompiledIn: Bool {
        #if PLANTED_FAULTS
        true
        #else
        false
        #endif
    }
}

@inlinable @inline(__always) public func planted(_ fault: PlantedFault) -> Bool {
    #if PLANTED_FAULTS
    PlantedFault.active == fault
    #else
    false
    #endif
}
