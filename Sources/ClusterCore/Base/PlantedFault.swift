/// One-line wrong changes of the engine that the simulator must notice: how we know that it can see. (reliability.md §5.7)
///
/// A site in the engine asks `planted(.name)`. In every ordinary build that is the constant false and leaves no code behind; only the package
/// trait `PlantedFaults` (`swift build --traits PlantedFaults`) makes it a question to `PlantedFault.active`.
public enum PlantedFault: String, CaseIterable, Sendable {
    /// A leader counts its own entries before its disk has them.
    case countsOwnEntriesBeforeSync
    /// A leader takes a follower's commands again when the message comes twice.
    case takesForwardsTwice

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
