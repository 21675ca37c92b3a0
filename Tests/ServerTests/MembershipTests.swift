import Base
import Foundation
import GRPC
import NIOCore
import NIOPosix
import Replica
import Testing
import Wire
@testable import Server

@Suite(.serialized) struct MembershipTests {
    private func addRequest(_ urls: [String], isLearner: Bool = false) -> [UInt8] {
        var request = PBMemberAddRequest()
        request.peerUrls = urls
        request.isLearner = isLearner
        return request.encoded()
    }

    @Test func clusterCallsAskTheMemberAndAnswerAsEtcdDoes() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            for urls in [[], [""], ["x"], ["ftp://h:1"], ["http://h"], ["http://h:1/path"], ["http://a:1", "nonsense"]] {
                let refused = await client.call(.memberAdd, addRequest(urls))
                #expect(refused.status.code == .invalidArgument && refused.status.message == ServiceError.memberBadURLs.message, "\(urls)")
            }
            #expect(bed.member.events.isEmpty, "bad URLs never reach the member")
            let before = SystemClock().wall().milliseconds / 1_000
            let answer = Fields(try #require(await client.call(.memberAdd, addRequest(["http://b:2", "https://a:1"], isLearner: true)).messages.first))
            let after = SystemClock().wall().milliseconds / 1_000
            let added = try #require(answer.message(2))
            // Sorted; and etcd's id: the second in which it was asked for is part of it.
            #expect(added.texts(3) == ["http://b:2", "https://a:1"] && added.number(5) == 1 && added.text(2) == "")
            let ids = (before...after).map { Identifiers.member(peerURLs: ["http://b:2", "https://a:1"], token: "\($0)").rawValue }
            #expect(ids.contains(added.number(1)))
            #expect(answer.bytes[3]?.count == 2, "the list has both members")
            #expect(answer.message(1)?.number(2) == 0xabc && answer.message(1)?.number(3) == 0 && answer.message(1)?.number(4) == 7)
            for method in [MethodID.memberRemove, .memberPromote] {
                let missing = await client.call(method, numberRequest(9))
                #expect(missing.status.code == .notFound && missing.status.message == ServiceError.memberNotFound.message)
            }
            var update = PBMemberUpdateRequest()
            update.id = 9
            update.peerUrls = ["any thing"]
            let updated = Fields(try #require(await client.call(.memberUpdate, update.encoded()).messages.first))
            #expect(updated.message(2)?.number(1) == 9 && updated.message(2)?.texts(3) == ["any thing"] && updated.bytes[3] == nil)
        }
    }

    @Test func aClusterInThisProcessGrowsAndShrinks() async throws {
        try await FaultTestBed.run(1) { bed in
            let cluster = bed.cluster
            let first = bed.ids[0]
            _ = try await bed.leader()
            try await bed.wait("the first member's name") { bed.status(first)?.membership.member(first)?.name == "n1" }
            try await bed.write("before", at: first)
            let group = MultiThreadedEventLoopGroup.singleton
            let ports = try await FaultTestBed.freePorts(4, group)
            var added: [EmbeddedCluster.Place] = []
            for at in 0..<2 {
                let place = try await cluster.addNode(port: (client: ports[2 * at], peer: ports[2 * at + 1]))
                added.append(place)
                #expect(cluster.nodes.contains(place))
                try await bed.write("while \(place.name) joins", at: first)
                try await bed.wait("\(place.name) votes and everybody knows its name") {
                    bed.status(first)!.raft.configuration.voters.contains(place.id) && bed.status(first)!.membership.member(place.id)?.name == place.name
                }
                try await bed.wait("\(place.name) has it all") { try await bed.local("while \(place.name) joins", at: place.id) == "v" }
                #expect(try await bed.local("before", at: place.id) == "v")
            }
            // The peer port says who is in, in etcd's shape.
            let remote = try await RemoteCluster.fetch(from: [added[1].peerURL], on: group)
            #expect(remote.id == cluster.node(first)!.identity.cluster && remote.members == bed.status(first)!.membership.members)
            // Away and back: it finds its identity in its own files.
            await cluster.kill(added[0].id)
            try await bed.write("without n2", at: first)
            try await cluster.start(added[0].id)
            try await bed.wait("n2 has caught up") { try await bed.local("without n2", at: added[0].id) == "v" }

            let ended = cluster.node(added[1].id)!.ended
            try await cluster.removeNode(added[1].id)
            guard case .removed? = try await ended.get() else { return #expect(Bool(false), "it ended otherwise") }
            #expect(!cluster.nodes.contains(added[1]) && bed.status(first)!.membership.isRemoved(added[1].id))
            try await bed.write("after", at: first)
            try await cluster.removeNode(added[0].id)
            try await bed.write("alone", at: first)
            #expect(bed.status(first)!.raft.configuration.voters == [first])
        }
    }

    @Test func aFounderThatLostItsDataIsNotFoundedAgain() async throws {
        try await FaultTestBed.run(3) { bed in
            let leader = try await bed.leader()
            let victim = bed.followers(of: leader)[0]
            try await bed.wait("the victim's address") { bed.status(leader)?.membership.member(victim)?.clientURLs.isEmpty == false }
            await bed.cluster.kill(victim)
            let place = bed.cluster.nodes.first { $0.id == victim }!
            try FileManager.default.removeItem(atPath: place.dataDirectory)
            do {
                try await bed.cluster.start(victim)
                Issue.record("a member without its votes and log came back")
            } catch {
                #expect("\(error)".contains("has already been bootstrapped"), "\(error)")
            }
        }
    }

    @Test func aMemberThatMovesIsFoundAtItsNewAddress() async throws {
        try await FaultTestBed.run(3) { bed in
            let leader = try await bed.leader()
            let mover = bed.followers(of: leader)[0]
            // A relay would do as well; here the new address is another name of the same port.
            let port = bed.cluster.nodes.first { $0.id == mover }!.peerURL.port
            try await bed.cluster.node(leader)!.changeMembership(.update(mover, peerURLs: ["http://localhost:\(port)"]))
            try await bed.write("after the move", at: leader)
            try await bed.wait("the mover has it") { try await bed.local("after the move", at: mover) == "v" }
            // One that cannot be connected to is left out, and put back by the next update.
            try await bed.cluster.node(leader)!.changeMembership(.update(mover, peerURLs: ["nonsense"]))
            try await bed.write("while lost", at: leader)
            try await bed.cluster.node(leader)!.changeMembership(.update(mover, peerURLs: ["http://127.0.0.1:\(port)"]))
            try await bed.wait("the mover is back") { try await bed.local("while lost", at: mover) == "v" }
        }
    }
}
