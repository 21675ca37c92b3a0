import Base
import Foundation
import GRPC
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
@testable import Raft
@testable import Replica
import Store
import Testing
import Wire
@testable import Server

/// A real cluster in this process, on free ports, gone at the end of `run`.
private struct ObserverBed {
    let cluster: EmbeddedCluster
    let group: any EventLoopGroup
    var ids: [MemberID] { cluster.nodes.map(\.id) }

    static func run(_ count: Int, _ body: (ObserverBed) async throws -> Void) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        var holders: [any Channel] = []
        for _ in 0..<2 * count { holders.append(try await ServerBootstrap(group: group).bind(host: "127.0.0.1", port: 0).get()) }
        let ports = holders.map { $0.localAddress!.port! }
        for holder in holders { try await holder.close().get() }
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("quarterdeck-\(UUID().uuidString)").path
        let cluster = EmbeddedCluster(ports: (0..<count).map { (client: ports[2 * $0], peer: ports[2 * $0 + 1]) }, dataDirectory: directory)
        var failure: (any Error)?
        do {
            try await cluster.start()
            try await body(ObserverBed(cluster: cluster, group: group))
        } catch { failure = error }
        await cluster.abandon()
        try? await group.shutdownGracefully()
        try? FileManager.default.removeItem(atPath: directory)
        if let failure { throw failure }
    }

    func client(_ id: MemberID) async throws -> TestClient {
        try await TestClient.connect(cluster.nodes.first { $0.id == id }!.clientURL.port, group: group)
    }

    func observe(_ id: MemberID) async throws -> Observer { Observer(await (try await client(id)).observe()) }
}

extension TestClient {
    fileprivate func observe(life: UInt64 = 0, after sequence: UInt64 = 0) async -> Call {
        var request = PBObserveRequest()
        request.life = life
        request.sequence = sequence
        let call = start(.observeMember)
        call.send(request.encoded())
        call.halfClose()
        return call
    }
}

/// Everything that one stream told so far.
private final class Observer: Sendable {
    private let told = NIOLockedValueBox<[PBObserveResponse]>([])
    private let task: Task<Void, Never>

    init(_ call: TestClient.Call) {
        task = Task { [told] in
            while let message = await call.next() {
                guard let response = try? PBObserveResponse(decoding: message) else { continue }
                told.withLockedValue { $0.append(response) }
            }
        }
    }

    var responses: [PBObserveResponse] { told.withLockedValue { $0 } }
    var events: [PBObservedEvent] { responses.flatMap(\.events) }
    var states: [PBObservedState] { responses.filter(\.hasState).map(\.state) }
    var stageTotals: [PBObservedStage.Stage: UInt64] {
        var totals: [PBObservedStage.Stage: UInt64] = [:]
        for state in states {
            for stage in state.stages {
                for count in stage.counts { totals[stage.stage, default: 0] += count }
            }
        }
        return totals
    }
    func kinds(from: Int = 0) -> [PBObservedEvent.OneOf_Kind] { events.dropFirst(from).compactMap(\.kind) }
}

@Suite struct ObserverTests {
    private static func news(_ sequence: ClosedRange<UInt64>, picture: ObservedPicture? = nil) -> ObserverNews {
        ObserverNews(life: 5, notes: sequence.map {
            ObservedNote(sequence: $0, at: Instant(nanoseconds: Int64($0)), wallMicroseconds: 7, term: Term(3), isLearner: false, note: .peerLost(MemberID($0)))
        }, picture: picture)
    }

    private static func picture(_ count: Int) -> ObservedPicture {
        var stages = StageFigures()
        stages.record(.apply, .microseconds(100), count: count)
        return ObservedPicture(at: .zero, wallMicroseconds: 1, status: ScriptedMember.status(), stages: stages)
    }

    @Test func whoDoesNotReadMissesTheOldestAndIsToldHowMany() {
        let call = ObserveCall(life: 0, sequence: 0, limit: 100)
        for batch in 0..<10 as Range<UInt64> { call.take(Self.news(batch * 50 + 1...batch * 50 + 50)) }
        let response = try! PBObserveResponse(decoding: call.next(of: MemberID(9))!)
        #expect(response.memberID == 9 && response.life == 5)
        #expect(response.events.count <= 100)
        #expect(response.missed + UInt64(response.events.count) == 500)
        #expect(response.events.map(\.sequence) == Array(response.missed + 1...500))
        #expect(call.next(of: MemberID(9)) == nil)
    }

    @Test func statesTakeEachOthersPlaceButWhatWasMeasuredAddsUp() {
        let call = ObserveCall(life: 0, sequence: 0, limit: 100)
        call.take(Self.news(1...1, picture: Self.picture(1_000)))
        #expect(try! PBObserveResponse(decoding: call.next(of: MemberID(9))!).state.stages.isEmpty, "measured before the stream was there")
        call.take(Self.news(2...2, picture: Self.picture(3)))
        call.take(Self.news(3...3, picture: Self.picture(4)))
        let response = try! PBObserveResponse(decoding: call.next(of: MemberID(9))!)
        #expect(response.state.stages.map(\.stage) == [.apply])
        #expect(response.state.stages[0].counts == [7])
        #expect(StageHistogram.bounds[Int(response.state.stages[0].buckets[0])] >= 100)
        #expect(response.state.stages[0].sumMicroseconds == 700)
    }

    @Test func aStreamTakenUpAgainRepeatsNothingAndNamesWhatIsGone() {
        let call = ObserveCall(life: 5, sequence: 3, limit: 100)
        call.take(Self.news(1...6))
        #expect(try! PBObserveResponse(decoding: call.next(of: MemberID(9))!).events.map(\.sequence) == [4, 5, 6])
        let late = ObserveCall(life: 5, sequence: 3, limit: 100)
        late.take(Self.news(11...12))
        #expect(try! PBObserveResponse(decoding: late.next(of: MemberID(9))!).missed == 7)
        let reborn = ObserveCall(life: 4, sequence: 300, limit: 100)
        reborn.take(Self.news(1...2))
        let response = try! PBObserveResponse(decoding: reborn.next(of: MemberID(9))!)
        #expect(response.events.map(\.sequence) == [1, 2] && response.missed == 0)
    }

    @Test func aStreamIsFilledAgainWhenItsClientReadsAgain() async throws {
        var bounds = ClientBounds()
        bounds.maxWaitingObserverEvents = 1_000
        try await TestBed.run(bounds: bounds) { bed in
            let client = try await bed.client()
            let call = await client.observe()
            #expect(await eventually { !bed.member.observingLoops.isEmpty })
            call.pause()
            // Ten times what the stream's window and the bounds hold.
            let batches: UInt64 = 500, size: UInt64 = 1_000
            for batch in 0..<batches { bed.member.tell(Self.news(batch * size + 1...batch * size + size)) }
            try await bed.member.loop.submit {}.get()
            call.resume()
            var expected: UInt64 = 1
            var missed: UInt64 = 0
            while expected <= batches * size, let message = await call.next() {
                let response = try PBObserveResponse(decoding: message)
                missed += response.missed
                expected += response.missed
                for event in response.events {
                    #expect(event.sequence == expected)
                    expected = event.sequence + 1
                }
            }
            #expect(expected == batches * size + 1)
            #expect(missed > 0)
            call.cancel()
            #expect(await eventually { bed.member.observingLoops.isEmpty })
        }
    }

    @Test func drainedListenerEndsTheStream() async throws {
        try await TestBed.run { bed in
            let client = try await bed.client()
            let call = await client.observe()
            #expect(await eventually { !bed.member.observingLoops.isEmpty })
            await bed.listener.close()
            #expect(await call.end().status.code == .unavailable)
            #expect(bed.member.observingLoops.isEmpty)
        }
    }

    @Test func stageMeterTimesEntriesByWhatGoesInAndOut() {
        let times = StageTimes()
        times.setOn(true)
        var meter = StageMeter()
        func at(_ microseconds: Int64) -> Instant { Instant(nanoseconds: microseconds * 1_000) }
        func progress(_ last: UInt64, _ commit: UInt64, _ applied: UInt64) -> ReplicaProgress {
            ReplicaProgress(isLeader: true, last: LogIndex(last), commit: LogIndex(commit), applied: LogIndex(applied))
        }
        func append(_ from: UInt64, _ through: UInt64) -> PeerMessage {
            let entries = (from...through).map { Entry(index: LogIndex($0), term: Term(1), kind: .command, proposedAt: .unknown, payload: []) }
            return PeerMessage(from: MemberID(1), to: MemberID(2),
                               body: .raft(Message(from: MemberID(1), to: MemberID(2), term: Term(1), body: .append(previous: .zero, entries: entries, commit: .zero))))
        }
        meter.handled(progress(10, 10, 10), from: at(0), to: at(1), into: times)
        meter.sends([append(11, 14)], at: at(1_000))
        meter.handled(progress(14, 10, 10), from: at(1_000), to: at(1_001), into: times)
        // Lost and sent again: the second time counts.
        meter.sends([append(11, 14)], at: at(5_000))
        meter.accepted(LogIndex(13), from: MemberID(2), at: at(5_500), into: times)
        meter.accepted(LogIndex(14), from: MemberID(2), at: at(6_000), into: times)
        meter.handled(progress(14, 14, 12), from: at(6_000), to: at(6_300), into: times)
        meter.handled(progress(14, 14, 14), from: at(6_500), to: at(7_000), into: times)
        let figures = times.take()
        #expect(figures[.replicate].total == 4 && figures[.replicate].sumMicroseconds == 4_000)
        #expect(figures[.quorumWait].total == 4 && figures[.quorumWait].sumMicroseconds == 4 * 5_000)
        #expect(figures[.apply].total == 4 && figures[.apply].sumMicroseconds == 4 * 1_000)
        #expect(times.take() == StageFigures())
    }
}

/// Nodes with files, threads and sockets.
@Suite(.serialized) struct ObservedClusterTests {
    @Test func eventsOfAnElectionArriveInOrder() async throws {
        try await ObserverBed.run(3) { bed in
            var observers: [MemberID: Observer] = [:]
            for id in bed.ids { observers[id] = try await bed.observe(id) }
            func leader(above term: UInt64, without dead: MemberID?) async -> (id: MemberID, term: UInt64)? {
                var found: (MemberID, UInt64)?
                _ = await eventually(within: .seconds(30)) {
                    for id in bed.ids where id != dead {
                        guard let commit = observers[id]!.events.last(where: { if case .firstCommit? = $0.kind { true } else { false } }),
                              commit.term > term else { continue }
                        found = (id, commit.term)
                        return true
                    }
                    return false
                }
                return found
            }
            let first = try #require(await leader(above: 0, without: nil))
            let counts = observers.mapValues(\.events.count)
            await bed.cluster.kill(first.id)
            let second = try #require(await leader(above: first.term, without: first.id))
            #expect(second.id != first.id)
            let follower = bed.ids.first { $0 != first.id && $0 != second.id }!
            #expect(await eventually { observers[follower]!.kinds(from: counts[follower]!).contains(.leaderChanged(second.id.rawValue)) })

            // The last campaign of the winner, step by step.
            let won = observers[second.id]!.kinds(from: counts[second.id]!)
            let campaign = try #require(won.lastIndex(of: .roleChanged(.preCandidate)))
            var rest = won[campaign...]
            let steps: [(String, (PBObservedEvent.OneOf_Kind) -> Bool)] = [
                ("pre-votes asked", { if case .preVoteAsked = $0 { true } else { false } }),
                ("a pre-vote granted", { if case .voteReceived(let vote) = $0 { vote.preVote && vote.granted && vote.member == follower.rawValue } else { false } }),
                ("candidate", { $0 == .roleChanged(.candidate) }),
                ("votes asked", { if case .voteAsked = $0 { true } else { false } }),
                ("a vote granted", { if case .voteReceived(let vote) = $0 { !vote.preVote && vote.granted && vote.member == follower.rawValue } else { false } }),
                ("elected", { if case .elected(let elected) = $0 { elected.votes == 2 && elected.voters == 3 } else { false } }),
                ("leader", { $0 == .roleChanged(.leader) }),
                ("first commit", { if case .firstCommit = $0 { true } else { false } }),
            ]
            for (name, isStep) in steps {
                let place = try #require(rest.firstIndex(where: isStep), "\(name) not in \(rest)")
                rest = rest[(place + 1)...]
            }
            #expect(won.contains(.peerLost(first.id.rawValue)))
            // The voter's side of it.
            #expect(observers[follower]!.kinds(from: counts[follower]!).contains {
                if case .voteCast(let vote) = $0 { !vote.preVote && vote.member == second.id.rawValue } else { false }
            })
            // Asked before answered, also by the clocks of two members: a note is stamped before its message leaves.
            let asked = try #require(observers[second.id]!.events.last { $0.term == second.term && { if case .voteAsked? = $0.kind { true } else { false } }($0) })
            let cast = try #require(observers[follower]!.events.last {
                if case .voteCast(let vote)? = $0.kind { !vote.preVote && vote.member == second.id.rawValue && $0.term == second.term } else { false }
            })
            #expect(asked.wallMicroseconds <= cast.wallMicroseconds)
            for id in bed.ids {
                let events = observers[id]!.events
                #expect(events.map(\.sequence) == Array(1...UInt64(events.count)), "nothing twice, nothing left out")
                #expect(zip(events, events.dropFirst()).allSatisfy { $0.monotonicNanoseconds <= $1.monotonicNanoseconds })
                #expect(observers[id]!.responses.allSatisfy { $0.missed == 0 && $0.memberID == id.rawValue })
            }
            func settled(_ id: MemberID, when isRight: (PBObservedState) -> Bool) async -> PBObservedState? {
                _ = await eventually { observers[id]!.states.last.map(isRight) ?? false }
                return observers[id]!.states.last
            }
            let state = try #require(await settled(second.id) { $0.role == .leader && $0.term == second.term })
            #expect(state.role == .leader && state.term == second.term && state.leader == second.id.rawValue && !state.hasTimerLeftMicroseconds)
            let other = try #require(await settled(follower) { $0.role == .follower && $0.term == second.term && $0.leader == second.id.rawValue })
            #expect(other.role == .follower && other.vote == second.id.rawValue)
            // A member that never campaigned still has its first timer, which is a quarter as long at least.
            #expect(other.timerLeftMicroseconds <= other.timerLengthMicroseconds && (250_000..<2_000_000).contains(other.timerLengthMicroseconds))
        }
    }

    @Test func statesTellPeersAndWhereTheTimeGoes() async throws {
        try await ObserverBed.run(3) { bed in
            let observers = try await [bed.observe(bed.ids[0]), bed.observe(bed.ids[1]), bed.observe(bed.ids[2])]
            let client = try await bed.client(bed.ids[0])
            // The first state brings none of what was measured before it.
            #expect(await eventually(within: .seconds(30)) { observers.allSatisfy { !$0.states.isEmpty } })
            for number in 0..<50 { #expect(await client.call(.put, putRequest("k\(number)", "v"), timeout: .seconds(30)).status.code == .ok) }
            func leader() -> Observer? { observers.first { $0.states.last?.role == .leader } }
            #expect(await eventually(within: .seconds(30)) {
                guard let state = leader()?.states.last else { return false }
                return state.peers.count == 2 && state.commit == state.applied
                    && state.peers.allSatisfy { $0.active && $0.phase == .replicate && $0.match == state.last && $0.roundTripMicroseconds > 0 }
            })
            let states = try #require(leader()).states
            var totals: [PBObservedStage.Stage: UInt64] = [:]
            #expect(await eventually {
                totals = leader()!.stageTotals
                return totals[.backendCommit] ?? 0 > 0
            })
            for stage in [.logWrite, .quorumWait, .apply, .replicate] as [PBObservedStage.Stage] { #expect(totals[stage] ?? 0 >= 30, "\(stage) in \(totals)") }
            #expect(await eventually { observers[0].stageTotals[.queue] ?? 0 >= 45 }, "\(observers[0].stageTotals)")
            // While the log moves about ten a second, never more.
            let times = states.map(\.monotonicNanoseconds)
            #expect(zip(times, times.dropFirst()).allSatisfy { $1 - $0 >= 9_000_000 })
            // Quiet: one a second.
            let quiet = states.count
            #expect(await eventually(within: .seconds(20)) { leader()!.states.count >= quiet + 5 })
            let rest = leader()!.states.suffix(3).map(\.monotonicNanoseconds)
            #expect(zip(rest, rest.dropFirst()).allSatisfy { $1 - $0 >= 900_000_000 })
        }
    }

    @Test func anObserverThatDoesNotReadCostsTheNodeNothing() async throws {
        try await ObserverBed.run(1) { bed in
            let node = try #require(bed.cluster.node(bed.ids[0]))
            let putter = try await bed.client(bed.ids[0])
            #expect(await putter.call(.put, putRequest("k", "v"), timeout: .seconds(30)).status.code == .ok)
            /// Median of puts between storms of events.
            func pace(_ rounds: Int) async throws -> Duration {
                var took: [Duration] = []
                for _ in 0..<rounds {
                    try await node.driver.loop.submit { for peer in 1...20_000 as ClosedRange<UInt64> { node.driver.note(.peerLost(MemberID(peer))) } }.get()
                    for _ in 0..<5 {
                        let began = ContinuousClock.now
                        #expect(await putter.call(.put, putRequest("k", "v"), timeout: .seconds(30)).status.code == .ok)
                        took.append(ContinuousClock.now - began)
                    }
                }
                return took.sorted()[took.count / 2]
            }
            let alone = try await pace(20)
            let call = await (try await bed.client(bed.ids[0])).observe()
            _ = try #require(await call.next())
            call.pause()
            let before = residentBytes()
            let rounds = 60
            let observed = try await pace(rounds)
            // 1.2 million events would stay, and take more than this; what other tests hold meanwhile counts too, and goes.
            #expect(await eventually(within: .seconds(20)) { residentBytes() - before < 192 << 20 }, "\(residentBytes() - before) bytes more")
            #expect(observed < alone * 3 + .milliseconds(5), "\(observed) with a stuck observer, \(alone) without")
            call.resume()
            var told = 0, missed = 0
            let wanted = rounds * 20_000
            while told + missed < wanted, let message = await call.next() {
                let response = try PBObserveResponse(decoding: message)
                told += response.events.count
                missed += Int(response.missed)
            }
            // The node's own news comes on top: a member that publishes itself.
            #expect(told + missed >= wanted && told + missed <= wanted + 10)
            #expect(missed > wanted / 2 && told > 1_000)
        }
    }

    private func residentBytes() -> Int {
        let text = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
        return (text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * 4_096
    }
}
