/// State of the Elections view.
struct ElectionsState: Hashable, Sendable {
    mutating func heard(_ events: [RaftEvent], cluster: ClusterState) {}
    mutating func heard(_ samples: [NodeSample]) {}
    mutating func heard(_ writes: [CanaryWrite]) {}
    mutating func heard(_ active: [ActiveFault], before: [ActiveFault], at now: Moment) {}
}
