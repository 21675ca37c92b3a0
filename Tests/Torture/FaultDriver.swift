import Base
import Foundation
import Processes
import Server
import Synchronization

/// Carries a schedule out on a cluster.
struct FaultDriver: Sendable {
    let cluster: Cluster
    let clock: RunClock
    let say: @Sendable (String) -> Void
    /// How often each kind was done.
    let counts = Counts()

    final class Counts: Sendable {
        private let numbers = Mutex<[String: Int]>([:])
        func add(_ kind: String) { numbers.withLock { $0[kind, default: 0] += 1 } }
        var all: [String: Int] { numbers.withLock { $0 } }
    }

    /// Returns when the last fault is over.
    func run(_ schedule: [ScheduledFault]) async {
        let start = ContinuousClock.now
        await withTaskGroup(of: Void.self) { group in
            for (number, step) in schedule.enumerated() {
                group.addTask {
                    do {
                        try await Task.sleep(until: start + .milliseconds(step.start))
                        try await perform(number, step)
                    } catch is CancellationError {
                    } catch {
                        say("fault \(number) (\(step.fault.kind)): \(error)")
                    }
                }
            }
        }
    }

    private func indexes(_ target: Fault.Target) async -> [Int] {
        let count = cluster.endpoints.count
        switch target {
        case .member(let index): return [index]
        case .leader(let otherwise): return [await cluster.leader() ?? otherwise]
        case .all: return Array(0..<count)
        }
    }

    private func perform(_ number: Int, _ step: ScheduledFault) async throws {
        let kind = step.fault.kind
        counts.add(kind)
        func tell(_ what: String) {
            say(String(format: "%7.3f s  %@ for %.2f s", Double(clock.now()) / 1e9, what, Double(step.duration) / 1e3))
        }
        func names(_ indexes: [Int]) -> String { indexes.map { "n\($0 + 1)" }.joined(separator: " ") }
        func last() async throws { try await Task.sleep(for: .milliseconds(step.duration)) }

        func links(_ indexes: [Int], _ direction: Fault.Direction, _ state: LinkConditions) -> [Link: LinkConditions] {
            var links: [Link: LinkConditions] = [:]
            for index in indexes {
                for other in 0..<cluster.endpoints.count where other != index {
                    if direction != .in { links[Link(from: index, to: other)] = state }
                    if direction != .out { links[Link(from: other, to: index)] = state }
                }
            }
            return links
        }
        func network(_ links: [Link: LinkConditions]) async throws {
            await cluster.network.begin(number, links)
            try? await last()
            await cluster.network.end(number)
        }
        func disk(_ target: Fault.Target, _ treatment: DiskTreatment) async throws {
            let index = await indexes(target)[0]
            tell("\(kind) \(names([index]))")
            await cluster.setDisk(index, treatment)
            try? await last()
            await cluster.setDisk(index, DiskTreatment())
            guard treatment.failure != nil else { return }
            // Whoever could not write stops, and is started again by whoever watches over it.
            _ = await condition(withinSeconds: 1) { await !cluster.runs(index) }
            try await cluster.start(index)
        }

        switch step.fault {
        case .kill(let target):
            let victims = await indexes(target)
            tell("\(kind) \(names(victims))")
            for victim in victims { await cluster.kill(victim) }
            try? await last()
            for victim in victims { try await cluster.start(victim) }
        case .pause(let target):
            let index = await indexes(target)[0]
            tell("\(kind) \(names([index]))")
            await cluster.pause(index)
            try? await last()
            await cluster.resume(index)
        case .cut(let target, let direction, let loses):
            let index = await indexes(target)[0]
            tell("\(kind) \(names([index])) \(direction.rawValue)\(loses ? ", losing" : "")")
            try await network(links([index], direction, LinkConditions(cut: loses ? .losing : .holding)))
        case .cutLink(let from, let to, let loses):
            tell("\(kind) n\(from + 1) to n\(to + 1)\(loses ? ", losing" : "")")
            try await network([Link(from: from, to: to): LinkConditions(cut: loses ? .losing : .holding)])
        case .delay(let target, let milliseconds, let jitter):
            let index = await indexes(target)[0]
            tell("\(kind) \(names([index])) by \(milliseconds) ms")
            try await network(links([index], .out, LinkConditions(delayMicroseconds: Int64(milliseconds) * 1_000, jitterMicroseconds: Int64(jitter) * 1_000)))
        case .slow(let target, let rate):
            let index = await indexes(target)[0]
            tell("\(kind) \(names([index])) at \(rate) B/s")
            try await network(links([index], .both, LinkConditions(bytesPerSecond: rate)))
        case .flap(let target, let every):
            let index = await indexes(target)[0]
            tell("\(kind) \(names([index])) every \(every) ms")
            let end = ContinuousClock.now + .milliseconds(step.duration)
            while ContinuousClock.now < end, !Task.isCancelled {
                await cluster.network.resetConnections(of: index)
                try? await Task.sleep(for: .milliseconds(every))
            }
        case .diskSlow(let target, let milliseconds):
            var treatment = DiskTreatment()
            treatment.syncDelayMicroseconds = Int64(milliseconds) * 1_000
            try await disk(target, treatment)
        case .diskStuck(let target):
            var treatment = DiskTreatment()
            treatment.isStuck = true
            try await disk(target, treatment)
        case .diskBroken(let target):
            var treatment = DiskTreatment()
            treatment.failure = .broken
            try await disk(target, treatment)
        case .diskFull(let target):
            var treatment = DiskTreatment()
            treatment.failure = .full
            try await disk(target, treatment)
        }
    }
}
