/// State of the Latency view.
struct LatencyState: Hashable, Sendable {
    mutating func heard(_ sample: WorkloadSample) {}
    mutating func heard(_ samples: [NodeSample], cluster: ClusterState) {}
    mutating func heard(_ samples: [MetricsSample]) {}
}
