import UI

/// A scripted experiment on a cluster, as read from a file: what is done, what is waited for, and what must be true then.
struct Scenario: Hashable, Sendable {
    /// The file's name without its ending.
    var name: String
    var title: String
    var description: String
    /// At least so many; just so many when the nodes are started for it.
    var nodes: Int
    var options = NodeOptions()
    var steps: [Step]

    /// What nodes must be started with; nil: it does not matter.
    struct NodeOptions: Hashable, Sendable {
        var snapshotCount: Int?
        var catchUpEntries: Int?
        var heartbeatMilliseconds: Int?
        var electionMilliseconds: Int?
    }

    struct Step: Hashable, Sendable {
        /// What people read while it is done; nil: the caption before stays.
        var say: String?
        var action: Action
        /// Where it stands in the file.
        var line: Int
    }

    indirect enum Action: Hashable, Sendable {
        case say
        /// Gives nodes names for later steps, in the file's order.
        case pick([Pick])
        /// nil: the load ends, and everything that it wrote is read back.
        case load(WorkloadSettings?)
        case fault(FaultForm, milliseconds: Int64?)
        case heal(Healing)
        case restart(Selector)
        case lead(Selector)
        case put(key: String, value: String, times: Int)
        case compact
        case wait(Condition, withinMilliseconds: Int64)
        /// For both, people and machines: what is on has to be on for this long.
        case hold(milliseconds: Int64)
        /// Only when somebody watches.
        case pause(milliseconds: Int64)
        case repeated(times: Int, steps: [Step])
        case expect([Expectation])
    }

    struct Pick: Hashable, Sendable {
        var name: String
        var nodes: Selector
    }

    /// Nodes as a step names them; what it means is found out when the step runs.
    enum Selector: Hashable, Sendable {
        case leader
        /// Everyone who runs and does not lead.
        case followers
        case anyFollower
        /// `n1` is 1.
        case number(Int)
        case all
        /// Those that no other part of the same fault names.
        case rest
        case down
        case majority(withLeader: Bool)
        case minority(withLeader: Bool)
        /// A name given by `pick`.
        case picked(String)
    }

    enum FaultForm: Hashable, Sendable {
        case kill(Selector), stop(Selector), pause(Selector), tear(Selector), isolate(Selector)
        /// From each to each.
        case cut(from: Selector, to: Selector, isMutual: Bool)
        case partition([Selector])
        case wire(from: Selector, to: Selector, isMutual: Bool, WireFault)
        case disk(Selector, DiskFault)
        case clock(Selector, ClockFault)
    }

    enum Healing: Hashable, Sendable {
        case all
        /// What the latest `fault` step did.
        case last
        case verb(String)
    }

    enum Condition: Hashable, Sendable {
        case leader
        /// Another than before the latest fault, transfer or restart.
        case anotherLeader
        case noLeader
        case leads(Selector)
        case follows(Selector)
        case down(Selector)
        case up(Selector)
        case caughtUp(Selector)
        case writesSucceed
        case writesFail
        /// Acknowledged by the load since the step began.
        case writes(Int)
        /// A node took a snapshot from the leader since the scenario began.
        case snapshotInstalled
    }

    enum Expectation: Hashable, Sendable {
        case lostWrites(atMost: Int)
        case consistencyClean
        case elections(ClosedRange<Int>)
        /// A write that was sent after the latest fault, transfer, heal or restart was acknowledged within this time of it.
        case writesResumed(withinMilliseconds: Int64)
        /// The longest time without an acknowledged write, since the scenario began.
        case writeGap(atMostMilliseconds: Int64)
        /// The longest time without a leader, since the scenario began.
        case leaderless(atMostMilliseconds: Int64)
        /// Since the latest fault, transfer or restart.
        case leaderUnchanged(Bool)
        case termUnchanged(Bool)
        case leaderIs(Selector)
        case membersEqual(Bool)
        case running(Int)
        case writesSucceed(Bool)
        case snapshotsInstalled(atLeast: Int)
        case failedOperations(atMost: Int)
    }
}
