import Foundation
import Testing

/// A server that a script of calls runs on: a real etcd or one of ours, new and of one member.
struct Subject {
    /// As `host:port`.
    var endpoint: String
    var scratch: Scratch
    /// nil: real etcd.
    var own: ServeCluster?

    var isOwn: Bool { own != nil }
    var port: Int { Int(endpoint.split(separator: ":").last!)! }
}

/// What a script did and what it was answered, step by step.
struct Transcript: Sendable {
    struct Step: Sendable {
        var what: String
        var answer: String
        /// Why ours answers otherwise, where it does so on purpose.
        var deviation: String?
    }
    private(set) var steps: [Step] = []

    mutating func add(_ what: String, _ answer: String, deviation: String? = nil) { steps.append(Step(what: what, answer: answer, deviation: deviation)) }
}

/// The same script on a real etcd and on ours, which must answer the same, step by step. What is each server's own (ids, ports, times) the
/// script leaves out of its answers.
///
/// A step with a `deviation` must differ: one that does not stands in the list without a reason.
/// - Parameters:
///   - etcdFlags: of real etcd alone.
///   - ownFlags: of ours alone.
///   - flags: of both.
/// - Returns: how many steps were compared.
@discardableResult
func expectSameOnBoth(_ release: EtcdRelease = .v3_5, flags: [String] = [], etcdFlags: [String] = [], ownFlags: [String] = [],
                      _ location: SourceLocation = #_sourceLocation, script: (Subject) async throws -> Transcript) async throws -> Int {
    var theirs = Transcript(), ours = Transcript()
    try await withRealEtcd(release, extra: flags + etcdFlags) { endpoint, scratch in theirs = try await script(Subject(endpoint: endpoint, scratch: scratch)) }
    try await withServers(extra: flags + ownFlags) { cluster in
        ours = try await script(Subject(endpoint: cluster.nodes[0].endpointText, scratch: cluster.scratch, own: cluster))
        #expect(cluster.nodes[0].process?.status == nil, "the server ended:\n\(cluster.logs.suffix(8_000))", sourceLocation: location)
    }
    #expect(ours.steps.map(\.what) == theirs.steps.map(\.what), "not the same steps", sourceLocation: location)
    for (number, (own, real)) in zip(ours.steps, theirs.steps).enumerated() {
        if let reason = own.deviation {
            #expect(own.answer != real.answer, "step \(number), \(own.what), is no deviation any more: \(reason)", sourceLocation: location)
        } else {
            #expect(own.answer == real.answer, "step \(number): \(own.what)", sourceLocation: location)
        }
    }
    return theirs.steps.count
}
