import Base
import GRPC
import Replica
import Testing
import Wire
@testable import Server

@Suite(.serialized) struct OverloadTests {
    /// Commands wait for a leader, and no more of them than is allowed; reads and what is under way are not touched.
    @Test func tooManyWaitingCommandsAreRefusedInEtcdsWords() async throws {
        try await FaultTestBed.run(3, options: { $0.maxPendingProposals = 10 }) { bed in
            let leader = try await bed.leader()
            for follower in bed.followers(of: leader) { await bed.cluster.kill(follower) }
            let client = try await bed.client(leader)
            let calls = client.startTogether(.put, (0..<30).map { putRequest("k\($0)", "v") })
            var refused = 0
            // In the order in which they came: the first ten wait.
            for call in calls.dropFirst(10) {
                let status = await call.end().status
                #expect(status.code == .resourceExhausted && status.message == "etcdserver: too many requests")
                refused += 1
            }
            #expect(refused == 20)
            let local = await client.call(.range, rangeRequest("k", serializable: true))
            #expect(local.status.code == .ok)
            // Who gives up makes room only when the command is settled: the log may have it.
            for follower in bed.followers(of: leader) { try await bed.cluster.start(follower) }
            for call in calls.prefix(10) {
                let status = await call.end().status
                // On a busy machine the followers may take longer than a request may wait.
                #expect(status.code == .ok || status.message.hasPrefix("etcdserver: request timed out"), "\(status)")
            }
            try await bed.write("after", at: leader)
        }
    }
}
