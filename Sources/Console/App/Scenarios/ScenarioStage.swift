import UI

/// What a scenario is played on: the nodes, what breaks them, what loads them, and what tells of them. Calls return when they have taken
/// effect and throw one line for the person.
protocol ScenarioStage: AnyObject, Sendable {
    var nodes: [HostedNode] { get }
    /// What was heard since `begin`.
    var log: ScenarioLog { get }

    /// From now on looks at the nodes, listens, and lets the canary write.
    func begin() async throws
    /// As nodes saw their cluster last; never waits.
    func views() -> [NodeView]

    func add(_ fault: Fault, milliseconds: Int64?) async throws -> String
    func heal(_ fault: Fault) async throws
    /// Those that are on and that this scenario did, oldest first.
    func faults() async -> [Fault]
    func restart(_ node: UInt64) async throws
    func transferLeadership(to node: UInt64) async throws

    /// nil: ends the load and returns when everything that it wrote was read back.
    func setLoad(_ settings: WorkloadSettings?) async throws
    /// Through the leader, or any node while none is known.
    func put(_ key: String, _ value: String, timeoutMilliseconds: Int64) async throws
    /// Everything up to now; returns the revision.
    func compact() async throws -> Int64
    /// Of the whole history up to one revision, of every node that is up.
    func hashes() async throws -> (revision: Int64, hashes: [UInt64: UInt32])

    /// Heals what this scenario did, ends its load, and leaves no keys of its own. Never throws and always returns.
    func end() async
}
