import Base
import Foundation
import GRPC
import Replica
import Store
import Testing
import Wire

@testable import Server

private struct StoppedNode {
    let directory: String
    var log: String { directory + "/member/log" }
    var store: String { directory + "/member/store" }

    func files(_ directory: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: directory).filter { !$0.hasSuffix("-lock") }.sorted().map { directory + "/" + $0 }
    }
    /// Everything, to show that nothing was changed.
    func contents() throws -> [String: Data] {
        var all: [String: Data] = [:]
        for name in FileManager.default.enumerator(atPath: directory)! {
            let path = directory + "/\(name)"
            if let data = FileManager.default.contents(atPath: path) { all[path] = data }
        }
        return all
    }
}

/// A node's real files, of the kind that a real run leaves.
private func withStoppedNode(_ body: (StoppedNode) async throws -> Void) async throws {
    try await FaultTestBed.run(1) { bed in
        let id = bed.ids[0]
        _ = try await bed.leader()
        for n in 0..<40 { _ = try await bed.put("key \(n % 9)", String(repeating: "value \(n)", count: 30), at: id) }
        let directory = bed.cluster.node(id)!.configuration.effectiveDataDirectory
        let busy = #expect(throws: DataDirectoryCheck.Refusal.self) { try DataDirectoryCheck.run(directory) }
        #expect(busy?.description.contains("in use by a running node") == true)
        await bed.cluster.kill(id)
        try await body(StoppedNode(directory: directory))
    }
}

extension [UInt8] {
    fileprivate func offsets(of text: String) -> [Int] {
        let wanted = Array(text.utf8)
        guard count >= wanted.count else { return [] }
        return indices.dropLast(wanted.count - 1).filter { self[$0] == wanted[0] && self[$0..<$0 + wanted.count].elementsEqual(wanted) }
    }
}

private func poke(_ path: String, _ offset: Int, _ byte: UInt8) throws {
    let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
    defer { try? file.close() }
    try file.seek(toOffset: UInt64(offset))
    try file.write(contentsOf: Data([byte]))
}

@Suite(.serialized) struct DataDirectoryCheckTests {
    @Test func killedNodeIsSoundAndFlippedBitsOfItsFilesAreFound() async throws {
        try await withStoppedNode { node in
            let before = try node.contents()
            let sound = try DataDirectoryCheck.run(node.directory)
            #expect(sound.problems == [] && sound.store!.keys <= 9 && sound.identity != nil)
            #expect(try node.contents() == before)

            // The store: found, or of no consequence.
            let store = try #require(try node.files(node.store).first)
            let whole = [UInt8](FileManager.default.contents(atPath: store)!)
            var found = 0
            for at in stride(from: 11, to: whole.count, by: 61) {
                try poke(store, at, whole[at] ^ 1 << UInt8(at % 8))
                let result = try DataDirectoryCheck.run(node.directory)
                if result.isSound {
                    #expect(result.store?.revision == sound.store!.revision && result.store?.records == sound.store!.records && result.applied == sound.applied, "flip at \(at)")
                } else {
                    found += 1
                    #expect(result.problems.allSatisfy { $0.place == "store 1" }, "\(result.problems)")
                }
                try poke(store, at, whole[at])
            }
            #expect(found > 20, "\(found) found")

            // The log: every byte of what was written counts.
            let segment = try #require(try node.files(node.log).first)
            let log = [UInt8](FileManager.default.contents(atPath: segment)!)
            let end = log.lastIndex { $0 != 0 }!
            for at in stride(from: 3, through: end, by: 211) {
                try poke(segment, at, log[at] ^ 4)
                let result = try DataDirectoryCheck.run(node.directory)
                #expect(result.problems.contains { $0.place == segment && $0.text.contains("at offset") }, "flip at \(at) of \(end)")
                try poke(segment, at, log[at])
            }
            #expect(try node.contents() == before)
            #expect(try DataDirectoryCheck.run(node.directory).isSound)
        }
    }

    @Test func whatIsNoNodesDirectoryIsRefused() throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("quarterdeck-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: directory) }
        func refusal() -> String { #expect(throws: DataDirectoryCheck.Refusal.self) { try DataDirectoryCheck.run(directory) }?.description ?? "" }
        #expect(refusal() == "\(directory) does not exist")
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        #expect(refusal().contains("holds no member"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == [], "nothing is left behind")
        try FileManager.default.createDirectory(atPath: directory + "/member/snap", withIntermediateDirectories: true)
        #expect(FileManager.default.createFile(atPath: directory + "/member/snap/db", contents: Data()))
        #expect(refusal().contains("real etcd member"))
    }

    /// A record that rots while the node runs: whoever reads it is told, and the node serves nobody any more.
    @Test func aDamagedRecordIsToldToItsReaderAndStopsTheNode() async throws {
        try await FaultTestBed.run(1) { bed in
            let id = bed.ids[0]
            _ = try await bed.leader()
            let value = "rotten value"
            try await bed.write("key", value, at: id)
            // Others after it, so that it leaves memory: a chunk of the overlay goes when all of it is durable.
            for n in 0..<300 { try await bed.write("other \(n)", at: id) }
            let node = bed.cluster.node(id)!
            let store = node.configuration.effectiveDataDirectory + "/member/store/0000000000000001.lmdb"
            var places: [Int] = []
            try await bed.wait("the value in the store's file") {
                try await bed.write("more", at: id)
                places = [UInt8](FileManager.default.contents(atPath: store)!).offsets(of: value)
                return !places.isEmpty && node.status!.applied.rawValue > 300
            }
            try await bed.wait("the value is read from the file") {
                for place in places { try poke(store, place, UInt8(ascii: "R")) }
                let answer = try? await bed.local("key", at: id)
                return answer == nil || answer == .some(nil)
            }
            let reason = try await node.ended.get()
            #expect("\(String(describing: reason))".contains("the store is damaged: record revision"), "\(String(describing: reason))")
        }
    }
}
